import * as tf from "@tensorflow/tfjs-core";
import { openEngine } from "@paddock/engine";
const threads=+(process.argv[2]??1);
const e = await openEngine({name:"torch", threads});
const K=(n,i,a)=>tf.engine().runKernel(n,i,a);
const hash=(a)=>{let h=0; const u=new Uint32Array(a.buffer,a.byteOffset,a.length); for(let i=0;i<u.length;i++) h=(Math.imul(h,31)+u[i])|0; return h;};
const bad={};
for (const [M,I,O] of [[1576,384,1152],[1576,1536,384],[197,384,384],[64,64,64],[50,48,144],[33,17,19],[128,256,65536/16],[5,192,576],[2,384,256],[1,384,2048]]) {
  const xs=tf.randomNormal([M,I]).dataSync(), ws=tf.randomNormal([O,I]).dataSync(), bs=tf.randomNormal([O]).dataSync(), dys=tf.randomNormal([M,O]).dataSync();
  const ref=[];
  for (const off of [0,1,2,3,4,5,7,8,9,12,15]) for (const which of ["w","x","dy","all"]) {
    const place=(v,o)=>{const sab=new Float32Array(new SharedArrayBuffer(4*(v.length+16))); const f=sab.subarray(o,o+v.length); f.set(v); return e.tensorFromFlat(f);};
    tf.tidy(()=>{
      const w=tf.reshape(place(ws, which==="w"||which==="all"?off:0),[O,I]);
      const x=tf.reshape(place(xs, which==="x"||which==="all"?off:0),[M,I]);
      const dy=tf.reshape(place(dys, which==="dy"||which==="all"?off:0),[M,O]);
      const bias=place(bs,off);
      const y=K("PaddockLinear",{x,w,bias}); const [dw,db,dx]=K("PaddockLinearBackward",{dy,x,w},{needDx:true,hasBias:true});
      [y,dw,db,dx].forEach((t,i)=>{ const h=hash(t.dataSync()); ref[i]??=h; if(h!==ref[i]) { const k=`${M}x${I}x${O} out${i} (${which})`; (bad[k]??=new Set()).add(off);} });
    });
  }
}
for (const [k,v] of Object.entries(bad)) console.log(k,[...v].join(","));
console.log("threads",threads,"done", Object.keys(bad).length);
