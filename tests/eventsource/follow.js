// Prints what an EventSource gets, one JSON array a line: the event's type, its id, its data.
// Usage: node follow.js URL. It reconnects by itself, as every EventSource does.
import { EventSource } from 'eventsource'

const source = new EventSource(process.argv[2])
for (const type of ['message', 'order.shipped', 'tidings.ready', 'tidings.live', 'tidings.gap']) {
  source.addEventListener(type, (event) => {
    console.log(JSON.stringify([type, event.lastEventId, event.data]))
  })
}
source.addEventListener('error', () => {
  // CLOSED means that it has given up for ever.
  console.log(JSON.stringify(['error', '', String(source.readyState === EventSource.CLOSED)]))
})
