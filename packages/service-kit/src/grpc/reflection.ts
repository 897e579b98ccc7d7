/** So that grpcurl and the like need no .proto files. Loaded by servers that people look at: parsing the files takes a tenth of a second. */
import type { Server } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { ReflectionService } from "@grpc/reflection";
import { protoFiles, protoRoot } from "@paddock/proto";
import { protoPath as healthProto } from "grpc-health-check";

export function addReflection(server: Server): void {
  const ours = loadSync([...protoFiles], { includeDirs: [protoRoot] });
  new ReflectionService({ ...ours, ...loadSync(healthProto) }).addToServer(server);
}
