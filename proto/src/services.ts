/** Service definitions in the shape that @grpc/grpc-js takes for servers and clients; this package needs no gRPC itself. */
import {
  CoordinatorMessage,
  type Generated,
  ListRequest,
  Run,
  RunList,
  RunRequest,
  ScaleRequest,
  ShardChunk,
  ShardRequest,
  SubmitRequest,
  WorkerMessage,
} from "#gen";
import { codecOf } from "./codec.js";

/** One RPC, structurally grpc-js's MethodDefinition; whether each side streams is part of the type. */
export interface Method<
  Request,
  Response,
  RequestStream extends boolean = boolean,
  ResponseStream extends boolean = boolean,
> {
  /** "/paddock.v1.Service/Method" */
  readonly path: string;
  readonly requestStream: RequestStream;
  readonly responseStream: ResponseStream;
  readonly requestSerialize: (message: Request) => Buffer;
  readonly requestDeserialize: (bytes: Buffer) => Request;
  readonly responseSerialize: (message: Response) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => Response;
}

/** Between coordinator and workers. */
export const WorkerService = {
  session: method("WorkerService/Session", WorkerMessage, CoordinatorMessage, true, true),
};

/** State streaming between workers. */
export const PeerService = {
  streamShard: method("PeerService/StreamShard", ShardRequest, ShardChunk, false, true),
};

/** Administration of runs. */
export const RunService = {
  submit: method("RunService/Submit", SubmitRequest, Run, false, false),
  get: method("RunService/Get", RunRequest, Run, false, false),
  list: method("RunService/List", ListRequest, RunList, false, false),
  watch: method("RunService/Watch", RunRequest, Run, false, true),
  pause: method("RunService/Pause", RunRequest, Run, false, false),
  resume: method("RunService/Resume", RunRequest, Run, false, false),
  scale: method("RunService/Scale", ScaleRequest, Run, false, false),
  cancel: method("RunService/Cancel", RunRequest, Run, false, false),
  checkpointNow: method("RunService/CheckpointNow", RunRequest, Run, false, false),
};

function method<Request, Response, Q extends boolean, R extends boolean>(
  name: string,
  request: Generated<Request>,
  response: Generated<Response>,
  requestStream: Q,
  responseStream: R,
): Method<Request, Response, Q, R> {
  const requests = codecOf(request);
  const responses = codecOf(response);
  return {
    path: `/paddock.v1.${name}`,
    requestStream,
    responseStream,
    requestSerialize: requests.encode,
    requestDeserialize: requests.decode,
    responseSerialize: responses.encode,
    responseDeserialize: responses.decode,
  };
}
