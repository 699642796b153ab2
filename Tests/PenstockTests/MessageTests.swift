// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Testing

/// Bytes that differ from place to place, so that a shifted or repeated part is noticed.
private func body(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
  let random = StableRandom(seed: seed)
  var bytes: [UInt8] = []
  bytes.reserveCapacity(count + 8)
  while bytes.count < count {
    withUnsafeBytes(of: random.next()) { bytes += $0 }
  }
  return Array(bytes.prefix(count))
}

@Suite struct SizesOfMessages {
  @Test(arguments: Disk.allCases) func bodiesOfAllSizesComeBack(disk: Disk) async throws {
    try await Bench.on(disk) { bench in
      var bench = bench
      bench.options.segmentSize = 4 << 20
      var (store, queue) = try await bench.openWithQueue()
      let sizes = [0, 1, 7, 8, 4039, 4040, 4041, 4096, 65_536, 262_144, 1_048_575, 1_048_576]
      for size in sizes { try await queue.send(body(size)) }
      for round in 0..<2 {
        let leases = try await queue.receive(maximum: 100)
        #expect(leases.map(\.body.count) == sizes)
        #expect(leases.allSatisfy { $0.body == body($0.body.count) })
        #expect(leases.allSatisfy { $0.message.receiveCount == round + 1 })
        bench.simulatedClock.advance(by: .seconds(30))
        try await store.close()
        (store, queue) = try await bench.openWithQueue()
      }
      try await store.close()
    }
  }

  @Test func aBatchIsOneGroupWithAResultForEach() async throws {
    var bench = Bench()
    bench.options.segmentSize = 4 << 20
    let (store, queue) = try await bench.openWithQueue()
    try await queue.change(.init { $0.maximumMessageBytes = 200_000 })
    let sizes = [100_000, 200_001, 0, 200_000]
    let results = try await queue.send(
      batch: sizes.map { SendEntry(MessageContent(body: body($0))) })
    #expect(results.count == 4)
    let codes = results.map { result -> PenstockError.Code? in
      if case .failure(let error) = result { return error.code }
      return nil
    }
    #expect(codes == [nil, .messageTooLarge, nil, nil])
    if case .failure(let error) = results[1] { #expect(error.limit == 200_000) }
    let leases = try await queue.receive(maximum: 10)
    #expect(leases.map(\.body.count) == [100_000, 0, 200_000])
    #expect(leases.map(\.message.handle.message) == [0, 2, 3].map { try? results[$0].get().lsn })
    #expect(try await queue.send(batch: []).isEmpty)
    #expect(try await queue.delete([]).isEmpty)
    try await store.close()
  }

  @Test func attributesCountTowardsTheLimit() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    try await queue.change(.init { $0.maximumMessageBytes = 1024 })
    let attribute = MessageAttribute(name: "k", type: "String", value: .string("x"))
    try await queue.send(body(1016), attributes: [attribute])
    let refused = await code { try await queue.send(body(1017), attributes: [attribute]) }
    #expect(refused == .messageTooLarge)
    #expect(try await queue.countsList == [1, 0, 0])
    try await store.close()
  }

  @Test func whatNoSegmentHoldsIsRefused() async throws {
    let bench = Bench(segmentSize: 64 << 10)
    let (store, queue) = try await bench.openWithQueue()
    #expect(await code { try await queue.send(body(40_000)) } == .messageTooLarge)
    // The largest that passes, again and again: each takes most of a segment.
    for _ in 0..<8 { try await queue.send(body(16_000)) }
    #expect(try await queue.countsList == [8, 0, 0])
    try await store.close()
  }

  @Test func negativeTimesAreRefused() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    #expect(
      await code { try await queue.send("x", delay: .milliseconds(-1)) } == .invalidArgument)
    try await queue.send("x")
    let lease = try #require(try await queue.receive().first)
    #expect(await code { try await lease.extend(to: .seconds(-1)) } == .invalidArgument)
    try await store.close()
  }

  @Test func aLeaseMayNotPassTheTotalLimit() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    try await queue.send("x")
    let handle = try #require(try await queue.receive().first).message.handle
    bench.pass(.seconds(10), store)
    func change(_ seconds: Int) async throws -> PenstockError.Code? {
      let change = VisibilityChange(handle: handle, timeout: .seconds(seconds))
      let answer = Answer {
        store.changeVisibility([change], of: queue.id, totalLimit: .seconds(43_200), $0)
      }
      if case .failure(let error) = try await answer.value[0] { return error.code }
      return nil
    }
    #expect(try await change(43_190) == nil)
    #expect(try await change(43_191) == .leaseLimitExceeded)
    try await store.close()
  }
}

@Suite struct ReceiptHandles {
  /// The values that its authors published: handles that are out, and groups in logs, rest on them.
  @Test(
    arguments: [
      (0, 0x726f_db47_dd0e_0e31), (8, 0x93f5_f579_9a93_2462), (15, 0xa129_ca61_49be_45e5),
    ] as [(UInt8, UInt64)])
  func theHashIsSipHash(length: UInt8, expected: UInt64) {
    for cut in 0...length {
      var hash = SipHash((0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908))
      hash.absorb(0..<cut)
      hash.absorb(cut..<length)
      #expect(hash.finish() == expected)
    }
  }

  @Test func textThatWasNotGivenOutIsNoHandle() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    try await queue.send("x")
    let handle = try #require(try await queue.receive().first).message.handle
    let text = store.receiptHandle(for: handle)
    #expect(store.leaseHandle(from: text) == handle)
    #expect(text.hasPrefix("AQEB"))

    let characters = Array(text)
    let others = Array("Aa0+/=-_ \u{e9}\u{0}")
    for place in characters.indices {
      for other in others where other != characters[place] {
        var flipped = characters
        flipped[place] = other
        #expect(store.leaseHandle(from: String(flipped)) == nil)
      }
    }
    for length in 0..<characters.count {
      #expect(store.leaseHandle(from: String(characters.prefix(length))) == nil)
    }
    for extra in ["=", "A", "AAAA", "\n", " "] {
      #expect(store.leaseHandle(from: text + extra) == nil)
      #expect(store.leaseHandle(from: extra + text) == nil)
    }
    try await store.close()
  }

  @Test func randomTextIsNoHandle() async throws {
    let store = try await Bench().open()
    let random = StableRandom(seed: 3)
    let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
    for _ in 0..<2000 {
      let length = random.chance(1, of: 2) ? 48 : random.below(80)
      let text = String((0..<length).map { _ in digits[random.below(digits.count)] })
      #expect(store.leaseHandle(from: text) == nil)
      #expect(store.leaseHandle(from: "AQEB" + text.dropFirst(4)) == nil)
    }
    for text in ["", "=", "\u{0}", "🐝", String(repeating: "=", count: 48)] {
      #expect(store.leaseHandle(from: text) == nil)
    }
    try await store.close()
  }

  @Test func anotherStoresHandleIsNoHandle() async throws {
    let (store, queue) = try await Bench(seed: 1).openWithQueue()
    let (other, otherQueue) = try await Bench(seed: 2).openWithQueue()
    for queue in [queue, otherQueue] { try await queue.send("x") }
    let handle = try #require(try await queue.receive().first).message.handle
    #expect(other.leaseHandle(from: store.receiptHandle(for: handle)) == nil)
    try await store.close()
    try await other.close()
  }
}

@Suite struct DamagedMessages {
  /// Flips a bit of a body in the log of a running store.
  private func damage(_ text: String, on disk: SimulatedFileSystem) throws {
    let pattern = Array(text.utf8)
    for name in try disk.list("/store") where name.hasSuffix(".seg") {
      guard let bytes = disk.contents(of: "/store/\(name)") else { continue }
      for start in 0..<bytes.count - pattern.count
      where bytes[start] == pattern[0] && bytes[start..<start + pattern.count] == pattern[...] {
        disk.flipBit(start * 8 + 1, in: "/store/\(name)")
        return
      }
    }
    Issue.record("\(text) is in no segment")
  }

  @Test func areSetAsideNotLostAndReported() async throws {
    let disk = SimulatedFileSystem()
    var bench = Bench(disk)
    bench.options.recentBytes = 0
    let (store, queue) = try await bench.openWithQueue()
    var receipts: [SendReceipt] = []
    for text in ["message-one", "message-two", "message-three"] {
      let entry = SendEntry(MessageContent(body: Array(text.utf8)))
      receipts.append(try await queue.send(batch: [entry])[0].get())
    }
    try damage("message-two", on: disk)
    let leases = try await queue.receive(maximum: 10, visibilityTimeout: .seconds(30))
    #expect(leases.map(\.text) == ["message-one", "message-three"])
    #expect(bench.lines.contains("LSN \(receipts[1].lsn) cannot be read"))
    #expect(bench.lines.contains("was set aside"))
    #expect(try await queue.countsList == [0, 2, 0])
    #expect(try await queue.describe().setAside == 1)
    #expect(try disk.list("/store").filter { $0.contains(".damaged-") }.count == 1)
    for lease in leases { try await lease.delete() }
    bench.pass(.seconds(30), store)
    #expect(try await queue.receive().isEmpty)
    #expect(PenstockError(.unreadableMessage, "").family == .rejected)
    // The store is sound otherwise.
    try await queue.send("message-four")
    #expect(try await queue.receive(maximum: 10).map(\.text) == ["message-four"])
    try await store.close()
  }

  @Test func aReadErrorHoldsBackWhatFollowsInAFIFOQueue() async throws {
    let disk = SimulatedFileSystem()
    var bench = Bench(disk)
    bench.options.recentBytes = 0
    let store = try await bench.open()
    let queue = try await store.queue("jobs.fifo", QueueSettings { $0.isFIFO = true })
    for text in ["one", "two"] { try await queue.send(text, group: "g", deduplicationID: text) }
    disk.inject(Fault([.read], errno: 5))
    #expect(await queue.startReceive(10).code == .unreadableMessage)
    bench.pass(.seconds(30), store)
    #expect(try await queue.receive(maximum: 10).map(\.text) == ["one", "two"])
    try await store.close()
  }

  @Test func aReadErrorIsReportedToo() async throws {
    let disk = SimulatedFileSystem()
    var bench = Bench(disk)
    bench.options.recentBytes = 0
    let (store, queue) = try await bench.openWithQueue()
    try await queue.send("x")
    disk.inject(Fault([.read], errno: 5))
    #expect(await queue.startReceive().code == .unreadableMessage)
    bench.pass(.seconds(30), store)
    #expect(try await queue.receive().map(\.text) == ["x"])
    try await store.close()
  }
}
