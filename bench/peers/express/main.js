// Starts the API and one worker, as two processes, and ends when either does.
const { fork } = require('node:child_process');
const path = require('node:path');

for (const part of ['server.js', 'worker.js']) {
  fork(path.join(__dirname, part)).on('exit', (code) => process.exit(code ?? 1));
}
