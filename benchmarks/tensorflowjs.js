// Runs converted models in TensorFlow.js, in turns: node tensorflowjs.js INPUTS ROUNDS MODEL...
// Prints, for each model, its outputs, the milliseconds to load it and the median of its calls.
const fs = require("fs");
const path = require("path");
const tf = require(path.join(process.env.TF_MOVPRUNE_TOOLS, "node_modules/@tensorflow/tfjs"));

const [inputsFile, rounds, ...folders] = process.argv.slice(2);

function handlerOf(folder) {
  return {
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
}

const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

async function main() {
  const inputs = {};
  for (const [name, rows] of Object.entries(JSON.parse(fs.readFileSync(inputsFile)))) {
    inputs[name] = tf.tensor2d(rows, undefined, "int32");
  }
  const results = [];
  for (const folder of folders) {
    const start = performance.now();
    const model = await tf.loadGraphModel(handlerOf(folder));
    results.push({ model, load: performance.now() - start, calls: [] });
  }
  for (let round = 0; round < Number(rounds); round++) {
    for (const result of results) {
      const start = performance.now();
      const outputs = await result.model.executeAsync(inputs);
      result.outputs = await outputs.array();
      result.calls.push(performance.now() - start);
      outputs.dispose();
    }
  }
  const shown = results.map(({ load, calls, outputs }) => ({ load, call: median(calls), outputs }));
  console.log(JSON.stringify(shown));
}

main();
