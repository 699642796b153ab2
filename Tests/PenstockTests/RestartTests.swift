// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSystem
import PenstockTesting
import Testing

private let attributes: [MessageAttribute] = [
  .init(name: "z", type: "Number.int", value: .string("0042")),
  .init(name: "a", type: "String", value: .string("e\u{301} \u{1F41D}\r\n")),
  .init(name: "blob", type: "Binary.png", value: .binary([0, 1, 255])),
]

@Suite struct Restart {
  @Test(arguments: Disk.allCases) func keepsContentsByteForByte(disk: Disk) async throws {
    try await Bench.on(disk) { bench in
      var (store, queue) = try await bench.openWithQueue()
      let content = MessageContent(
        body: Array(" \u{feff}x\r\n".utf8), attributes: attributes, groupID: "g",
        traceHeader: "Root=1", senderID: "AIDA")
      let sent = try await queue.send(batch: [SendEntry(content)])[0].get()
      let sentAt = store.now
      bench.pass(.seconds(100), store)
      try await store.close()

      (store, queue) = try await bench.openWithQueue()
      let message = try #require(try await queue.receive().first).message
      #expect(message.content == content)
      #expect(message.content.body == content.body)
      let texts = message.content.attributes.map { Array("\($0.name)\($0.value)".utf8) }
      #expect(texts == attributes.map { Array("\($0.name)\($0.value)".utf8) })
      #expect(message.id == sent.id)
      #expect(message.handle.message == sent.lsn)
      #expect(message.sentAt == sentAt)
      try await store.close()
    }
  }

  @Test(arguments: Disk.allCases) func keepsQueuesAndTheirSettings(disk: Disk) async throws {
    try await Bench.on(disk) { bench in
      var store = try await bench.open()
      let settings = QueueSettings(
        visibilityTimeout: .milliseconds(1500), delay: .seconds(900),
        maximumMessageBytes: 1024, retention: .seconds(60), receiveWait: .seconds(20))
      let queue = try await store.queue("orders-ä", settings)
      let gone = try await store.queue("gone")
      try await gone.remove()
      bench.pass(.seconds(3), store)
      let before = try await queue.change(.init { $0.receiveWait = .seconds(1) })
      try await store.close()

      store = try await bench.open()
      #expect(store.queueNames() == ["orders-ä"])
      #expect(store.lookup(queue.id) == before)
      #expect(store.lookup(gone.id) == nil)
      // The identity of the deleted one is not given out again.
      #expect(try await store.queue("gone").id > gone.id)
      try await store.close()
    }
  }

  @Test(arguments: Disk.allCases) func keepsLeasesDelaysAndTheirTimers(disk: Disk) async throws {
    try await Bench.on(disk) { bench in
      var (store, queue) = try await bench.openWithQueue()
      for text in ["leased", "released", "deleted", "visible"] { try await queue.send(text) }
      try await queue.send("delayed", delay: .seconds(40))
      let leases = try await queue.receive(maximum: 3, visibilityTimeout: .seconds(20))
      try await leases[1].release()
      try await leases[2].delete()
      #expect(try await queue.countsList == [2, 1, 1])
      bench.pass(.seconds(10), store)
      try await store.close()

      (store, queue) = try await bench.openWithQueue()
      #expect(store.recovery.end == .closed)
      #expect(store.recovery.messages == 4)
      #expect(try await queue.countsList == [2, 1, 1])
      let visible = try await queue.receive(maximum: 10, visibilityTimeout: .seconds(600))
      #expect(visible.map(\.text) == ["released", "visible"])
      let first = queue.startReceive()
      let second = queue.startReceive()
      bench.pass(.seconds(10), store)
      #expect(try await first.value.texts == ["leased"])
      #expect(!second.isThere)
      bench.pass(.seconds(20), store)
      #expect(try await second.value.texts == ["delayed"])
      try await store.close()
    }
  }

  @Test(arguments: Disk.allCases) func keepsReceiveCountsAndHandles(disk: Disk) async throws {
    try await Bench.on(disk) { bench in
      var (store, queue) = try await bench.openWithQueue()
      for text in ["a", "b"] { try await queue.send(text) }
      let firstAt = store.now
      let old = try await queue.receive(maximum: 2, visibilityTimeout: .zero)
      bench.pass(.seconds(1), store)
      let new = try await queue.receive(maximum: 2)
      let texts = (old + new).map { store.receiptHandle(for: $0.message.handle) }
      #expect(Set(texts).count == 4)
      try await store.close()

      (store, queue) = try await bench.openWithQueue()
      #expect(texts.map { store.leaseHandle(from: $0) } == (old + new).map(\.message.handle))
      // The newest handle of one message and an older one of the other.
      let handles = [texts[0], texts[3]].compactMap { store.leaseHandle(from: $0) }
      let change = VisibilityChange(handle: handles[1], timeout: .zero)
      let changed = Answer { store.changeVisibility([change], of: queue.id, $0) }
      try await changed.value[0].get()
      let again = try #require(try await queue.receive().first).message
      #expect(again.receiveCount == 3)
      #expect(again.firstReceivedAt == firstAt)
      for result in try await queue.delete(handles) { try result.get() }
      #expect(try await queue.counts.total == 0)
      try await store.close()
    }
  }

  @Test func keepsRetention() async throws {
    let bench = Bench()
    var (store, queue) = try await bench.openWithQueue()
    try await queue.change(.init { $0.retention = .seconds(60) })
    try await queue.send("old")
    bench.pass(.seconds(30), store)
    try await queue.send("young")
    try await store.close()
    bench.simulatedClock.advance(by: .seconds(30))
    (store, queue) = (try await bench.open(), queue)
    queue = try #require(store.existingQueue("q"))
    try await eventually { try await queue.countsList == [1, 0, 0] }
    #expect(try await queue.receive(maximum: 10).map(\.text) == ["young"])
    try await store.close()
  }

  @Test func afterARestartARestartFindsTheSame() async throws {
    let bench = Bench()
    var (store, queue) = try await bench.openWithQueue()
    for index in 0..<30 { try await queue.send("\(index)", delay: .seconds(index % 3 * 10)) }
    _ = try await queue.receive(maximum: 5)
    let counts = try await queue.counts
    for _ in 0..<4 {
      try await store.close()
      (store, queue) = try await bench.openWithQueue()
      #expect(try await queue.counts == counts)
    }
    try await store.close()
  }

  @Test func manySegmentsAreReadInOrder() async throws {
    let bench = Bench(segmentSize: 64 << 10)
    var (store, queue) = try await bench.openWithQueue()
    let body = [UInt8](repeating: 7, count: 3000)
    for index in 0..<120 { try await queue.send([UInt8(index)] + body) }
    try await store.close()
    (store, queue) = try await bench.openWithQueue()
    #expect(store.recovery.segments > 5)
    let leases = try await queue.receive(maximum: 1000)
    #expect(leases.map { Int($0.body[0]) } == Array(0..<120))
    #expect(leases.allSatisfy { $0.body.dropFirst() == body[...] })
    try await store.close()
  }
}

@Suite struct AClockThatWentBack {
  @Test func timeDoesNotGoBackAndLeasesEnd() async throws {
    let bench = Bench()
    var (store, queue) = try await bench.openWithQueue()
    try await queue.send("x")
    bench.pass(.seconds(1000), store)
    _ = try await queue.receive(visibilityTimeout: .seconds(30))
    let before = store.now
    try await store.close()
    bench.simulatedClock.setWall(milliseconds: 1_600_000_000_000)

    (store, queue) = try await bench.openWithQueue()
    #expect(store.now >= before)
    #expect(try await queue.countsList == [0, 1, 0])
    let answer = queue.startReceive(wait: .seconds(60))
    bench.pass(.seconds(29), store)
    #expect(try await queue.countsList == [0, 1, 0])
    bench.pass(.seconds(1), store)
    let message = try #require(try await answer.value.first)
    #expect(message.firstReceivedAt == before)
    #expect(message.leaseEndsAt > before)
    let sent = try await queue.send("y")
    let next = try #require(try await queue.receive().first).message
    #expect(next.id == sent)
    #expect(next.sentAt >= before)
    try await store.close()
  }

  @Test func aJumpWhileOpenChangesNothing() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    try await queue.send("x")
    _ = try await queue.receive(visibilityTimeout: .seconds(30))
    let before = store.now
    bench.simulatedClock.setWall(milliseconds: 1_600_000_000_000)
    #expect(store.now == before)
    bench.simulatedClock.setWall(milliseconds: 1_800_000_000_000)
    #expect(store.now == before)
    #expect(try await queue.countsList == [0, 1, 0])
    bench.pass(.seconds(30), store)
    #expect(try await queue.countsList == [1, 0, 0])
    try await store.close()
  }
}
