// Prints the report of the Khronos validator on a GLB: node validate_gltf.js FILE
const fs = require("fs");
require("gltf-validator")
  .validateBytes(new Uint8Array(fs.readFileSync(process.argv[2])))
  .then((report) => console.log(JSON.stringify(report)));
