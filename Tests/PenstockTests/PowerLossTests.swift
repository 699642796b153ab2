// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSystem
import PenstockTesting
import Synchronization
import Testing

/// Loses everything that was not synced.
private struct LosesAllPending: Chooser {
  mutating func choose(_ count: Int) -> Int { 0 }
}

/// What clients of a store were told, as they were told it.
private final class Told: Sendable {
  struct Facts {
    /// Handed to the store, by text; a send that may have happened.
    var submitted: Set<String> = []
    var acknowledged: Set<String> = []
    /// Handed to the store for deletion.
    var deleting: Set<String> = []
    var deleted: Set<String> = []
    /// Most receives that a receiver saw, by text.
    var receives: [String: Int] = [:]
  }
  private let facts = Mutex(Facts())
  var now: Facts { facts.withLock { $0 } }
  func tell(_ change: (inout Facts) -> Void) { facts.withLock { change(&$0) } }
}

/// Opens the disk that a crash left and compares it with what was told before and what was
/// submitted until after the crash: acknowledged ⊆ recovered ⊆ submitted, nothing deleted comes
/// back, each message exactly once; twice, as recovering again must change nothing.
private func check(
  _ disk: SimulatedFileSystem, told before: Told.Facts, submitted after: Told.Facts,
  clock wall: Int64
) async throws {
  var found: [[String]] = []
  for _ in 0..<2 {
    let bench = Bench(disk, segmentSize: 64 << 10, seed: 99, wall: wall)
    let (store, queue) = try await bench.openWithQueue()
    let count = try await queue.counts.total
    bench.pass(.seconds(100), store)
    let messages = try await queue.receive(maximum: 1000, visibilityTimeout: .seconds(50))
    #expect(messages.count == count)
    found.append(messages.map(\.text))
    for lease in messages {
      #expect(lease.message.receiveCount > 0)
    }
    try await store.close()
  }
  let recovered = Set(found[0])
  #expect(recovered.count == found[0].count, "each is there once")
  #expect(recovered.isSubset(of: after.submitted), "nothing was invented")
  let lost = before.acknowledged.subtracting(after.deleting).subtracting(recovered)
  #expect(lost.isEmpty, "acknowledged and lost: \(lost.sorted())")
  let risen = before.deleted.intersection(recovered)
  #expect(risen.isEmpty, "deleted and back: \(risen.sorted())")
  #expect(Set(found[1]) == recovered, "recovering twice changes nothing")
}

@Suite struct LossOfPower {
  /// After each acknowledgement, the disk without any byte that was not synced has the effect.
  @Test(arguments: UInt64(0)..<6) func keepsWhatWasJustAcknowledged(seed: UInt64) async throws {
    let disk = SimulatedFileSystem()
    let bench = Bench(disk, segmentSize: 64 << 10, seed: seed)
    let (store, queue) = try await bench.openWithQueue()
    let told = Told()
    let random = StableRandom(seed: seed)
    var leases: [Lease] = []
    for step in 0..<12 {
      if random.chance(2, of: 3) || leases.isEmpty {
        let texts = (0...random.below(3)).map { "\(step).\($0)" }
        told.tell { $0.submitted.formUnion(texts) }
        let entries = texts.map { SendEntry(MessageContent(body: Array($0.utf8))) }
        for result in try await queue.send(batch: entries) { _ = try result.get() }
        told.tell { $0.acknowledged.formUnion(texts) }
        leases += try await queue.receive(maximum: random.below(3) + 1)
      } else {
        let lease = leases.remove(at: random.below(leases.count))
        told.tell { $0.deleting.insert(lease.text) }
        try await lease.delete()
        told.tell { $0.deleted.insert(lease.text) }
      }
      var chooser = LosesAllPending()
      let crashed = disk.crashed(choosing: &chooser)
      let facts = told.now
      try await check(
        crashed, told: facts, submitted: facts, clock: bench.clock.wallMilliseconds())
    }
    try await store.close()
  }

  /// Senders, a receiver and deleters at once, and power is lost in the middle of it, repeatedly.
  @Test(arguments: UInt64(0)..<30) func keepsItsPromises(seed: UInt64) async throws {
    let disk = SimulatedFileSystem()
    let bench = Bench(disk, segmentSize: 64 << 10, seed: seed)
    let (store, queue) = try await bench.openWithQueue()
    let told = Told()
    let wall = bench.clock.wallMilliseconds()
    try await withThrowingTaskGroup { group in
      for sender in 0..<3 {
        group.addTask { try await send(as: sender, to: queue, told, seed: seed) }
      }
      group.addTask {
        for _ in 0..<20 {
          for lease in try await queue.receive(maximum: 3) {
            told.tell { $0.deleting.insert(lease.text) }
            try await lease.delete()
            told.tell { $0.deleted.insert(lease.text) }
          }
          await Task.yield()
        }
      }
      group.addTask {
        var chooser = SeededChooser(seed: seed)
        for _ in 0..<4 {
          for _ in 0..<chooser.choose(60) { await Task.yield() }
          let before = told.now
          let crashed = disk.crashed(choosing: &chooser, garbling: seed % 3 == 0)
          try await check(crashed, told: before, submitted: told.now, clock: wall)
        }
      }
      try await group.waitForAll()
    }
    try await store.close()
    let facts = told.now
    try await check(disk, told: facts, submitted: facts, clock: wall)
  }

  private func send(
    as sender: Int, to queue: Queue, _ told: Told, seed: UInt64
  ) async throws {
    let random = StableRandom(seed: seed &* 31 &+ UInt64(sender))
    for index in 0..<15 {
      let texts = (0...random.below(3)).map { "\(sender).\(index).\($0)" }
      told.tell { $0.submitted.formUnion(texts) }
      let entries = texts.map { SendEntry(MessageContent(body: Array($0.utf8))) }
      for result in try await queue.send(batch: entries) { _ = try result.get() }
      told.tell { $0.acknowledged.formUnion(texts) }
    }
  }

  /// A run that lost power gave out a handle that no disk knows of. It names nothing in the next
  /// run: not the message that is sent and received in the same order, to the same place.
  @Test func aHandleThatPowerLossTookNamesNoLaterMessage() async throws {
    let disk = SimulatedFileSystem()
    var bench = Bench(disk)
    try await bench.openWithQueue().0.close()
    bench.options.durability = .written
    let (store, queue) = try await bench.openWithQueue()
    try await queue.send("lost")
    let lost = try #require(try await queue.receive().first).message.handle
    let text = store.receiptHandle(for: lost)
    var chooser = LosesAllPending()
    var next = Bench(disk.crashed(choosing: &chooser), seed: 2)
    next.options.durability = .written
    try await store.close()

    let (again, recovered) = try await next.openWithQueue()
    #expect(recovered.id == queue.id)
    #expect(try await recovered.counts.total == 0)
    try await recovered.send("new")
    let new = try #require(try await recovered.receive().first).message.handle
    #expect(new.message > lost.message && new.token > lost.token)
    let handle = try #require(again.leaseHandle(from: text))
    let deleted = Answer { again.delete([handle], from: recovered.id, $0) }
    _ = try await deleted.value
    #expect(try await recovered.counts.total == 1, "the new message is there")
    try await again.close()
  }

  /// Leases are written and not synced; their tokens ascend all the same.
  @Test func aTokenThatPowerLossTookIsNotGivenOutAgain() async throws {
    var bench = Bench(SimulatedFileSystem())
    var tokens: [UInt64] = []
    for seed in 2..<6 as Range<UInt64> {
      let (store, queue) = try await bench.openWithQueue()
      if tokens.isEmpty { try await queue.send("a") }
      let message = try #require(try await queue.receive(visibilityTimeout: .seconds(600)).first)
      #expect(message.message.receiveCount == 1, "the lease before it was lost")
      tokens.append(message.message.handle.token)
      var chooser = LosesAllPending()
      let disk = try #require(bench.fileSystem as? SimulatedFileSystem)
      let crashed = disk.crashed(choosing: &chooser)
      try await store.close()
      bench = Bench(crashed, seed: seed)
    }
    #expect(tokens == Array(Set(tokens)).sorted())
  }

  /// All of a batch or none of it, wherever the power goes.
  @Test(arguments: UInt64(0)..<20) func aBatchIsThereWholeOrNotAtAll(seed: UInt64) async throws {
    let disk = GatedFileSystem()
    var bench = Bench(segmentSize: 64 << 10, seed: seed)
    bench.fileSystem = disk
    let (store, queue) = try await bench.openWithQueue()
    try await queue.send("first")
    disk.gate.close([.syncData])
    let body = [UInt8](repeating: 1, count: 1500)
    let batch = Answer {
      store.send(
        (0..<8).map { _ in SendEntry(MessageContent(body: body)) }, to: queue.id, $0)
    }
    await disk.gate.arrival()
    var chooser = SeededChooser(seed: seed)
    let crashed = disk.base.crashed(choosing: &chooser, garbling: seed % 2 == 0)
    let copy = Bench(crashed, segmentSize: 64 << 10)
    let (again, recovered) = try await copy.openWithQueue()
    let count = try await recovered.receive(maximum: 100).count
    #expect(count == 1 || count == 9)
    try await again.close()
    disk.gate.open()
    _ = try await batch.value
    try await store.close()
  }
}
