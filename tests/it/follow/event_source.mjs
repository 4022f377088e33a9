// An event source as the HTML standard has it, over fetch: node event_source.mjs URL TOKEN
// It says "open" at the first record of each connection, and at its end what it has had.
const [url, token] = process.argv.slice(2);
const pause = milliseconds => new Promise(done => setTimeout(done, milliseconds));
// Nobody waits for it any longer.
setTimeout(() => process.exit(9), 60_000).unref();
const had = {text: '', states: [], end: null, connections: 0};
let lastEventId = '', retry = 3000, isOpen = false;

function dispatch(type, data) {
  const record = JSON.parse(data);
  if (record.type !== type) throw new Error(`${type}: ${data}`);
  if (type === 'output') had.text += record.text;
  else if (type === 'state') had.states.push(record.state);
  else if (type === 'end') had.end = record.state;
  else throw new Error(data);
  if (!isOpen) console.log('open');
  isOpen = true;
}

async function read(body) {
  let buffer = '', data = [], type = '', id = lastEventId;
  for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
    buffer += chunk;
    const lines = buffer.split('\n');
    buffer = lines.pop();
    for (const line of lines) {
      if (line === '') {
        lastEventId = id;
        if (data.length > 0) dispatch(type || 'message', data.join('\n'));
        data = [];
        type = '';
        continue;
      }
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'event') type = value;
      else if (field === 'data') data.push(value);
      else if (field === 'id') id = value;
      else if (field === 'retry') retry = Number(value);
    }
  }
}

for (;;) {
  const headers = {Accept: 'text/event-stream', Authorization: `Bearer ${token}`};
  if (lastEventId) headers['Last-Event-ID'] = lastEventId;
  let response;
  try {
    response = await fetch(url, {headers, cache: 'no-store'});
  } catch {
    await pause(retry);
    continue;
  }
  if (response.status === 204) break;
  if (response.status !== 200 || response.headers.get('content-type') !== 'text/event-stream')
    throw new Error(`${response.status} ${await response.text()}`);
  had.connections += 1;
  isOpen = false;
  try {
    await read(response.body);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
  }
  await pause(retry);
}
console.log(JSON.stringify(had));
