// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Testing

private func number(_ message: SeenMessage) -> Int {
  Int(String(decoding: message.content.body, as: UTF8.self)) ?? -1
}

private func numbers(_ leases: [Lease]) -> [Int] { leases.compactMap { Int($0.text) } }

extension Queue {
  /// Receives all that can be received.
  fileprivate func drain() async throws -> [Int] {
    var all: [Int] = []
    while true {
      let leases = try await receive(maximum: 100, wait: .zero)
      all += numbers(leases)
      if leases.isEmpty, try await describe().counts.visible == 0 { return all }
      for lease in leases { try await lease.delete() }
    }
  }
}

@Suite struct Sweeps {
  /// Visible, parked, leased and delayed ones alike; the others keep their order, also after a
  /// restart from a checkpoint and after compaction.
  @Test(arguments: [4, 1024]) func aFilteredPurgeTakesWhatItPicks(window: Int) async throws {
    var bench = Bench()
    bench.options.window = window
    let (store, queue) = try await bench.openWithQueue()
    for number in 0..<600 { try await queue.send("\(number)") }
    try await queue.send("600", delay: .seconds(60))
    let held = try await queue.receive(maximum: 3, wait: .zero)
    #expect(numbers(held) == [0, 1, 2])
    let before = try await queue.describe().counts
    let dry = try await queue.purge(isDryRun: true) { number($0) % 3 == 0 }
    #expect(dry.matched == 201 && dry.done == 0 && dry.bytes > 201 * 40)
    #expect(try await queue.describe().counts == before)
    let report = try await queue.purge { number($0) % 3 == 0 }
    #expect(report.matched == 201 && report.done == 201 && report.bytes == dry.bytes)
    let counts = try await queue.describe().counts
    #expect([counts.visible, counts.leased, counts.delayed] == [398, 2, 0])
    try await store.close()
    let again = try await bench.open()
    let found = try #require(again.existingQueue("q"))
    #expect(try await found.purge { _ in false }.matched == 0)
    #expect(try await found.drain() == (3..<600).filter { $0 % 3 != 0 })
    #expect(try await found.describe().counts.total == 2)
    try await again.close()
  }

  /// What is left of a run goes to another segment, and holes stay behind.
  @Test func compactionPassesOverWhatWasTakenOut() async throws {
    var bench = Bench(segmentSize: 64 << 10)
    bench.options.window = 4
    let (store, queue) = try await bench.openWithQueue()
    let body = String(repeating: "0", count: 900)
    for number in 0..<600 { try await queue.send("\(body)\(number)") }
    let report = try await queue.purge { number($0) % 10 != 0 }
    #expect(report.done == 540)
    for _ in 0..<40 {
      for _ in 0..<20 { try await queue.send("\(body)9999") }
      _ = try await queue.purge { number($0) == 9999 }
    }
    #expect(try await queue.describe().counts.visible == 60)
    #expect(try await queue.drain() == (0..<60).map { $0 * 10 })
    try await store.close()
  }

  @Test(arguments: [4, 1024]) func aFilteredMoveKeepsTheOrder(window: Int) async throws {
    var bench = Bench()
    bench.options.window = window
    let (store, queue) = try await bench.openWithQueue()
    let other = try await store.queue("other")
    for number in 0..<300 { try await queue.send("\(number)") }
    _ = try await queue.receive(maximum: 2, wait: .zero)
    let dry = try await queue.move(to: other, isDryRun: true) { number($0) < 100 }
    #expect(dry.matched == 98 && dry.done == 0)
    let report = try await queue.move(to: other) { number($0) < 100 }
    #expect(report.matched == 98 && report.done == 98)
    #expect(try await other.drain().sorted() == Array(2..<100))
    #expect(try await queue.drain() == Array(100..<300))
    try await store.close()
  }

  @Test func groupsKeepTheirOrderThoughOthersStay() async throws {
    let bench = Bench()
    let store = try await bench.open()
    let queue = try await store.queue("a.fifo", QueueSettings(isFIFO: true))
    let other = try await store.queue("b.fifo", QueueSettings(isFIFO: true))
    for number in 0..<90 { try await queue.send("\(number)", group: "\(number % 2)") }
    let report = try await queue.move(to: other) { number($0) % 3 == 0 }
    #expect(report.done == 30)
    let moved = try await other.drain()
    for group in 0..<2 {
      #expect(moved.filter { $0 % 2 == group } == (0..<90).filter { $0 % 6 == group * 3 })
    }
    #expect(try await queue.purge { number($0) < 45 }.done == 30)
    #expect(try await queue.drain().sorted() == (45..<90).filter { $0 % 3 != 0 })
    try await store.close()
  }

  /// What is in flight is not overtaken, also by a second call.
  @Test func aLeaseHoldsItsGroupInAMoveToo() async throws {
    let store = try await Bench().open()
    let queue = try await store.queue("a.fifo", QueueSettings(isFIFO: true))
    let other = try await store.queue("b.fifo", QueueSettings(isFIFO: true))
    for number in 0..<6 { try await queue.send("\(number)", group: "\(number % 2)") }
    let held = try #require(try await queue.receive(maximum: 1, wait: .zero).first)
    #expect(held.text == "0")
    #expect(try await queue.move(to: other) { _ in true }.done == 3)
    try await held.release()
    #expect(try await queue.move(to: other) { _ in true }.done == 3)
    #expect(try await other.drain() == [1, 3, 5, 0, 2, 4])
    try await store.close()
  }

  /// A consumer draws parked messages into memory while the sweep looks at them.
  @Test func besideAConsumerNothingIsPassedOver() async throws {
    var bench = Bench()
    bench.options.window = 64
    let (store, queue) = try await bench.openWithQueue()
    for start in stride(from: 0, to: 4000, by: 100) {
      let batch = (start..<start + 100).map { SendEntry(MessageContent(body: Array("\($0)".utf8))) }
      for result in try await queue.send(batch: batch) { _ = try result.get() }
    }
    let consumer = Task {
      var taken: Set<Int> = []
      for _ in 0..<100 {
        for lease in try await queue.receive(maximum: 10, wait: .zero) {
          taken.formUnion(numbers([lease]))
          try await lease.delete()
        }
      }
      return taken
    }
    _ = try await queue.purge { number($0) % 2 == 0 }
    let taken = try await consumer.value
    let left = try await queue.drain()
    #expect(left == (0..<4000).filter { $0 % 2 == 1 && !taken.contains($0) })
    try await store.close()
  }

  /// The newest segment of a queue is taken out, others go on: the checkpoints can be read.
  @Test func theEndOfAQueueIsTakenOut() async throws {
    var bench = Bench(segmentSize: 64 << 10)
    bench.options.window = 4
    let (store, queue) = try await bench.openWithQueue()
    let body = String(repeating: "0", count: 900)
    func send(_ numbers: Range<Int>, to queue: Queue) async throws {
      for start in stride(from: numbers.lowerBound, to: numbers.upperBound, by: 10) {
        let batch = (start..<start + 10).map {
          SendEntry(MessageContent(body: Array("\(body)\($0)".utf8)))
        }
        for result in try await queue.send(batch: batch) { _ = try result.get() }
      }
    }
    try await send(0..<400, to: queue)
    #expect(try await queue.purge { number($0) >= 200 }.done == 200)
    let other = try await store.queue("other")
    for round in 0..<30 {
      try await send(0..<40, to: other)
      try await other.purge()
      if round == 15 { try await send(1000..<1020, to: queue) }
    }
    try await store.close()
    let again = try await bench.open()
    let found = try #require(again.existingQueue("q"))
    #expect(try await found.drain() == Array(0..<200) + Array(1000..<1020))
    try await again.close()
  }

  /// A redrive of some: back to where each came from; what was sent to the dead letters stays.
  @Test func aFilteredRedriveGoesWhereEachCameFrom() async throws {
    let bench = Bench()
    let store = try await bench.open()
    let dead = try await store.queue("dead")
    let queue = try await store.queue(
      "orders",
      QueueSettings {
        $0.deadLetterQueue = "dead"
        $0.maximumReceives = 1
      })
    for number in 0..<10 { try await queue.send("\(number)") }
    for lease in try await queue.receive(maximum: 10, wait: .zero) { try await lease.reject() }
    try await dead.send("4")
    let report = try await dead.move(to: nil) { number($0) % 2 == 0 }
    #expect(report.matched == 5 && report.done == 5)
    #expect(try await queue.drain() == [0, 2, 4, 6, 8])
    #expect(try await dead.drain() == [1, 3, 5, 7, 9, 4])
    await #expect(throws: PenstockError.self) {
      _ = try await dead.move(to: dead) { _ in true }
    }
    try await store.close()
  }

  /// Power is lost at any moment of a sweep: each message is in one of the two queues.
  @Test(arguments: UInt64(1)...10) func powerLossLeavesEachInOnePlace(seed: UInt64) async throws {
    let disk = SimulatedFileSystem()
    var bench = Bench(disk, seed: seed)
    bench.options.window = 4
    let (store, queue) = try await bench.openWithQueue()
    let other = try await store.queue("other")
    for number in 0..<400 { try await queue.send("\(number)") }
    let sweep = Task {
      _ = try? await queue.move(to: other) { number($0) % 2 == 0 }
      _ = try? await queue.purge { number($0) % 3 == 0 }
    }
    let random = StableRandom(seed: seed)
    for _ in 0..<random.below(3000) { await Task.yield() }
    var chooser = SeededChooser(seed: seed)
    let left = disk.crashed(choosing: &chooser)
    _ = await sweep.value
    try await store.close()
    bench.fileSystem = left
    let again = try await bench.open()
    let (a, b) = (try #require(again.existingQueue("q")), again.existingQueue("other"))
    let (stayed, moved) = (try await a.drain(), try await b?.drain() ?? [])
    #expect(Set(stayed).intersection(moved).isEmpty && Set(stayed).count == stayed.count)
    #expect(moved.allSatisfy { $0 % 2 == 0 } && Set(moved).count == moved.count)
    let kept = Set((0..<400).filter { $0 % 2 == 1 && $0 % 3 != 0 })
    #expect(kept.isSubset(of: stayed))
    #expect(Set(stayed + moved).isSuperset(of: (0..<400).filter { $0 % 2 == 0 || $0 % 3 != 0 }))
    try await again.close()
  }
}
