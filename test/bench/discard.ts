/** HTTP server that throws the body of each PUT away and answers with its length: `node discard.js PORT`. */
import { createServer } from 'node:net';

createServer({ noDelay: true }, socket => {
  let head = '';
  let bytes = 0;
  let left = 0;
  socket.on('error', () => {});
  socket.on('data', data => {
    if (left > 0) left -= data.length;
    else {
      head += data.toString('latin1');
      const end = head.indexOf('\r\n\r\n');
      if (end < 0) return;
      bytes = Number(/content-length: *(\d+)/i.exec(head)?.[1] ?? 0);
      left = bytes - (head.length - end - 4);
      head = '';
    }
    if (left > 0) return;
    const answer = `${bytes}\n`;
    socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${answer.length}\r\n\r\n${answer}`);
  });
}).listen({ port: Number(process.argv[2]), host: '0.0.0.0' });
