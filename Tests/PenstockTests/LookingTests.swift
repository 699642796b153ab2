// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Testing

@Suite struct Looking {
  @Test(arguments: [4, 1024]) func aWalkSeesEverythingOnceAndChangesNothing(window: Int)
    async throws
  {
    var bench = Bench()
    bench.options.window = window
    let (store, queue) = try await bench.openWithQueue()
    for number in 0..<300 { try await queue.send("\(number)") }
    try await queue.send("delayed", delay: .seconds(60))
    let leases = try await queue.receive(maximum: 3, wait: .zero)
    #expect(leases.count == 3)
    var found: [String: SeenMessage] = [:]
    // The drawing that the receive asked for is over.
    while store.isDrawing { await Task.yield() }
    let before = store.stateHash
    try await queue.walk { message in
      #expect(found.updateValue(message, forKey: text(message)) == nil)
      return true
    }
    #expect(found.count == 301)
    #expect(found["0"]?.state == .leased(until: leases[0].message.leaseEndsAt))
    #expect(found["0"]?.receiveCount == 1 && found["200"]?.receiveCount == 0)
    #expect(found["200"]?.state == .visible)
    let end = Timestamp(milliseconds: store.now.milliseconds + 60_000)
    #expect(found["delayed"]?.state == .delayed(until: end))
    #expect(store.stateHash == before)
    for name in ["0", "250", "delayed"] {
      let message = try #require(found[name])
      #expect(try await queue.message(message.id)?.lsn == message.lsn)
    }
    #expect(try await queue.message(MessageID(randomHigh: 1, randomLow: 2)) == nil)
    try await store.close()
  }

  @Test func aPeekShowsWhatComesNext() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    for number in 0..<5 { try await queue.send("\(number)") }
    #expect(try await queue.peek(limit: 3).map(text) == ["0", "1", "2"])
    _ = try await queue.receive(wait: .zero)
    #expect(try await queue.peek().map(text) == ["1", "2", "3", "4"])
    #expect(try await queue.peek(limit: 0).isEmpty)
    let lease = try #require(try await queue.receive(wait: .zero).first)
    #expect(lease.message.receiveCount == 1)
    try await queue.remove()
    #expect(await code { _ = try await queue.peek() } == .queueNotFound)
    #expect(await code { try await queue.walk { _ in true } } == .queueNotFound)
    try await store.close()
    #expect(await code { _ = try await queue.peek() } == .closed)
  }

  private func text(_ message: SeenMessage) -> String {
    String(decoding: message.content.body, as: UTF8.self)
  }
}
