// Browsers start no worker from a file on the disk. There, a hidden frame does the work of one.
"use strict"

class IFrameWorker extends EventTarget {
  constructor(url) {
    super()
    this.frame = document.createElement("iframe")
    this.frame.hidden = true
    this.frame.srcdoc = `<script>
      postMessage = data => parent.dispatchEvent(new MessageEvent("frame-worker", { data }))
      importScripts = (...urls) => urls.reduce((before, url) => before.then(() =>
        new Promise((done, fail) => {
          const script = document.createElement("script")
          Object.assign(script, { src: url, onload: done, onerror: fail })
          document.body.append(script)
        })), Promise.resolve())
    <\/script><script src="${new URL(url, location)}"><\/script>`
    this.ready = new Promise(done => this.frame.addEventListener("load", done, { once: true }))
    addEventListener("frame-worker", event => this.receive(event.data))
    document.body.append(this.frame)
  }

  receive(data) {
    const event = new MessageEvent("message", { data })
    this.dispatchEvent(event)
    if (this.onmessage) this.onmessage(event)
  }

  postMessage(data) {
    const deliver = window => window.dispatchEvent(new window.MessageEvent("message", { data }))
    this.ready.then(() => deliver(this.frame.contentWindow))
  }

  terminate() {
    this.frame.remove()
  }
}

if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = IFrameWorker
}
