// Each family of ops lives in a file of its name and adds itself to the addon's exports.
#pragma once

namespace paddock {

class Module;

void defineTensors(Module& module);
void defineDevice(Module& module);
void defineElementwise(Module& module);
void defineReduce(Module& module);
void defineShape(Module& module);
void defineIndexing(Module& module);
void defineLinear(Module& module);
void defineMlp(Module& module);
void defineNorm(Module& module);
void defineActivation(Module& module);
void defineAttention(Module& module);
void defineRope(Module& module);
void defineRows(Module& module);
void defineLoss(Module& module);
void defineKoleo(Module& module);
void defineSinkhorn(Module& module);
void defineSequence(Module& module);
void defineNccl(Module& module);
void defineConvolution(Module& module);
void definePooling(Module& module);
void defineResize(Module& module);
void defineFlat(Module& module);
void defineVectors(Module& module);

}  // namespace paddock
