// Child processes, worker threads, a watched directory, streams and a server.
const { execFileSync, spawn, fork } = require('child_process');
const { Worker, isMainThread, parentPort } = require('worker_threads');
const fs = require('fs'), http = require('http'), crypto = require('crypto'), path = require('path');
if (!isMainThread) {
  parentPort.postMessage(fs.readFileSync('/data/big').length);
} else if (process.argv[2] === 'child') {
  process.send({ argv: process.argv.slice(2), size: fs.statSync('/data/big').size });
  process.exit(0);
} else {
  (async () => {
    console.log(process.argv, process.execPath, process.cwd());
    console.log(fs.readdirSync('/data').sort(), fs.realpathSync('/data/link'));
    console.log(execFileSync(process.execPath, ['-p', '1 + 1']).toString());
    console.log(await Promise.all([...Array(4)].map(() => new Promise((done) => new Worker(__filename).on('message', done)))));
    await new Promise((done) => fork(__filename, ['child', 'a']).on('message', (m) => console.log(m)).on('exit', done));
    await new Promise((done) => spawn('/no/such').on('error', (e) => { console.log(e.code); done(); }));
    try { fs.writeFileSync('/data/new', 'x'); } catch (e) { console.log(e.code); }
    const folder = fs.mkdtempSync('/tmp/watched-'), seen = new Set();
    const watcher = fs.watch(folder, (event, name) => seen.add(`${event} ${name}`));
    const moment = () => new Promise((done) => setTimeout(done, 300));
    fs.writeFileSync(`${folder}/a`, 'one'); await moment();
    fs.appendFileSync(`${folder}/a`, 'two'); fs.renameSync(`${folder}/a`, `${folder}/b`); await moment();
    fs.unlinkSync(`${folder}/b`); await moment();
    console.log([...seen].sort()); watcher.close();
    const hash = crypto.createHash('sha256');
    for await (const chunk of fs.createReadStream('/data/big')) hash.update(chunk);
    console.log(hash.digest('hex'), (await fs.promises.readFile('/data/small')).length);
    const server = http.createServer((request, response) => fs.createReadStream('/data/big').pipe(response));
    await new Promise((done) => server.listen(8080, '127.0.0.1', done));
    http.get('http://127.0.0.1:8080/', (response) => {
      let size = 0;
      response.on('data', (chunk) => { size += chunk.length; }).on('end', () => { console.log(size); process.exit(5); });
    });
  })();
}
