// Runs a converted model in TensorFlow.js on named inputs: node run_tensorflowjs.js MODEL INPUTS
const fs = require("fs");
const path = require("path");
const tf = require(path.join(process.env.TF_MOVPRUNE_TOOLS, "node_modules/@tensorflow/tfjs"));

const [folder, inputsFile] = process.argv.slice(2);
const handler = {
  async load() {
    const model = JSON.parse(fs.readFileSync(path.join(folder, "model.json")));
    const paths = model.weightsManifest.flatMap((group) => group.paths);
    const data = Buffer.concat(paths.map((name) => fs.readFileSync(path.join(folder, name))));
    return {
      modelTopology: model.modelTopology,
      signature: model.signature,
      weightSpecs: model.weightsManifest.flatMap((group) => group.weights),
      weightData: data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength),
    };
  },
};

async function main() {
  const model = await tf.loadGraphModel(handler);
  const inputs = {};
  for (const [name, rows] of Object.entries(JSON.parse(fs.readFileSync(inputsFile)))) {
    inputs[name] = tf.tensor2d(rows, undefined, "int32");
  }
  const logits = await model.executeAsync(inputs);
  console.log(JSON.stringify(logits.arraySync()));
}

main();
