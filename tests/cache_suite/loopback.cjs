// Preloaded into the suite's origin, which would listen on every interface on the port that it is given: it listens on
// 127.0.0.1 and tells its parent the port.
const net = require('net')

const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (port) {
  this.once('listening', () => console.log(`PORT ${this.address().port}`))
  return listen.call(this, { port: Number(port), host: '127.0.0.1' })
}
