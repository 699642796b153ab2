// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockSystem
import PenstockTesting
import Synchronization
import Testing

/// A store, some of whose messages are acknowledged, on a disk that then fails.
private struct Failing {
  let disk = GatedFileSystem()
  var bench: Bench
  let store: Store
  let queue: Queue

  init() async throws {
    bench = Bench()
    bench.fileSystem = disk
    (store, queue) = try await bench.openWithQueue()
    for text in ["a", "b"] { try await queue.send(text) }
    // The next segment is ready, so that only the log's own writer writes.
    let disk = disk
    try await eventually { try disk.list("/store").contains { $0.hasSuffix(".next") } }
  }

  /// The next write or sync of the log fails, and all later ones.
  func fail(_ kind: CallKind) {
    disk.base.inject(Fault([kind], isPermanent: true, errno: EIO))
  }

  func reopen() async throws -> (Store, Queue) {
    disk.base.clearFaults()
    return try await bench.openWithQueue()
  }
}

@Suite struct AFailedDisk {
  @Test(arguments: [CallKind.write, .syncData]) func poisonsTheStore(kind: CallKind) async throws {
    let failing = try await Failing()
    let (store, queue) = (failing.store, failing.queue)
    let lease = try #require(try await queue.receive().first)
    let waiting = try await store.queue("other").startReceive()
    failing.fail(kind)
    let first = queue.startSend("unknown")
    #expect(await first.code == .outcomeUnknown)
    #expect(await waiting.code == .storeFailed)
    #expect(store.isClosed)
    #expect(failing.bench.lines.contains("failed"))

    #expect(await queue.startSend("late").code == .storeFailed)
    #expect(await queue.startReceive().code == .storeFailed)
    #expect(await code { try await lease.delete() } == .storeFailed)
    #expect(await code { try await lease.extend(to: .seconds(1)) } == .storeFailed)
    #expect(await code { try await queue.purge() } == .storeFailed)
    #expect(await code { try await queue.remove() } == .storeFailed)
    #expect(await code { try await queue.change(.init { $0.delay = .zero }) } == .storeFailed)
    #expect(await code { _ = try await store.queue("new") } == .storeFailed)
    // Looking goes on.
    #expect(store.lookup("q")?.id == queue.id)
    #expect(store.queueNames() == ["other", "q"])
    // But nothing is said for sure whose outcome is unknown, such as counts with that message.
    #expect(await code { _ = try await queue.describe() } == .storeFailed)
    #expect(await code { try await store.close() } == .storeFailed)

    let (again, recovered) = try await failing.reopen()
    failing.bench.pass(.seconds(30), again)
    let texts = try await recovered.receive(maximum: 10).map(\.text)
    #expect(texts == ["a", "b"] || texts == ["a", "b", "unknown"])
    try await again.close()
  }

  @Test func everyOperationUnderWayIsAnswered() async throws {
    let failing = try await Failing()
    let queue = failing.queue
    let lease = try #require(try await queue.receive().first)
    failing.disk.gate.close([.syncData])
    let sends = (0..<5).map { queue.startSend("\($0)") }
    let delete = Answer { queue.store.delete([lease.message.handle], from: queue.id, $0) }
    let receive = queue.startReceive(10)
    let create = Answer { queue.store.createQueue("new", QueueSettingsChange(), $0) }
    await failing.disk.gate.arrival()
    #expect(sends.allSatisfy { !$0.isThere })
    failing.fail(.syncData)
    failing.disk.gate.open()
    for send in sends { #expect(await send.code == .outcomeUnknown) }
    #expect(await delete.code == .outcomeUnknown)
    #expect(await receive.code == .outcomeUnknown)
    #expect(await create.code == .outcomeUnknown)
    #expect(sends.allSatisfy { $0.count == 1 })
    _ = await code { try await queue.store.close() }
  }

  /// The queue is in memory and can be looked up, but nothing may be told of it.
  @Test func aQueueWhoseCreationFailedIsNotDescribed() async throws {
    let failing = try await Failing()
    failing.fail(.syncData)
    let create = Answer { failing.store.createQueue("new", QueueSettingsChange(), $0) }
    #expect(await create.code == .outcomeUnknown)
    let id = try #require(failing.store.lookup("new")?.id)
    let describe = Answer { failing.store.describe(id, $0) }
    #expect(await describe.code == .storeFailed)
    _ = await code { try await failing.store.close() }
  }

  @Test func aFailureWhileClosingReleasesTheDirectory() async throws {
    let failing = try await Failing()
    failing.disk.gate.close([.syncData])
    let send = failing.queue.startSend("unknown")
    await failing.disk.gate.arrival()
    let closes = (0..<2).map { _ in Answer { failing.store.close($0) } }
    failing.fail(.syncData)
    failing.disk.gate.open()
    #expect(await send.code == .outcomeUnknown)
    for close in closes { #expect(await close.code == .storeFailed) }
    let (store, queue) = try await failing.reopen()
    #expect(try await queue.counts.visible >= 2)
    try await store.close()
  }

  @Test func aFailedSealIsReportedAndReleasesTheDirectory() async throws {
    let failing = try await Failing()
    failing.fail(.truncate)
    #expect(await code { try await failing.store.close() } == .storeFailed)
    #expect(await code { try await failing.store.close() } == nil)
    let (store, queue) = try await failing.reopen()
    #expect(try await queue.receive(maximum: 10).map(\.text) == ["a", "b"])
    try await store.close()
  }

  @Test func aFailedPreparationPoisonsTheStore() async throws {
    let bench = Bench()
    let disk = try #require(bench.fileSystem as? SimulatedFileSystem)
    let store = try await bench.open()
    disk.inject(Fault([.rename], isPermanent: true, errno: EIO))
    let create = await code {
      for index in 0..<10_000 { _ = try await store.queue("q\(index)") }
    }
    #expect(create?.description == "storeFailed" || create == .outcomeUnknown)
    _ = await code { try await store.close() }
  }

  /// A thread that looks at the clock again and again would count far more.
  @Test func aFailedStoreIsIdle() async throws {
    var failing = try await Failing()
    failing.fail(.syncData)
    #expect(await failing.queue.startSend("x").code == .outcomeUnknown)
    _ = await code { try await failing.store.close() }

    let clock = CountingClock(base: failing.bench.simulatedClock)
    failing.bench.clock = clock
    let (store, queue) = try await failing.reopen()
    failing.fail(.syncData)
    #expect(await queue.startSend("x").code == .outcomeUnknown)
    store.timeHasMoved()
    let before = clock.looks.load(ordering: .relaxed)
    _ = Doorbell().wait(nanoseconds: 300_000_000)
    #expect(clock.looks.load(ordering: .relaxed) - before < 100)
    _ = await code { try await store.close() }
  }

  @Test func anExpiryThatCannotBeLoggedDoesNotKeepTheStoreBusy() async throws {
    var bench = Bench()
    let disk = GatedFileSystem()
    bench.fileSystem = disk
    var (store, queue) = try await bench.openWithQueue()
    try await queue.change(.init { $0.retention = .seconds(60) })
    try await queue.send("old")
    try await store.close()
    for name in try disk.list("/store") where name.hasSuffix(".next") {
      disk.base.erase("/store/\(name)")
    }
    bench.simulatedClock.advance(by: .seconds(100))
    let clock = CountingClock(base: bench.simulatedClock)
    bench.clock = clock
    disk.gate.close([.write], pathSuffix: ".partial")
    store = try await bench.open()
    queue = try #require(store.existingQueue("q"))
    await disk.gate.arrival()
    let before = clock.looks.load(ordering: .relaxed)
    _ = Doorbell().wait(nanoseconds: 300_000_000)
    #expect(clock.looks.load(ordering: .relaxed) - before < 100)
    disk.gate.open()
    try await eventually { try await queue.counts.total == 0 }
    try await store.close()
  }
}

/// Counts how often somebody looks at the clock.
private final class CountingClock: SystemClock {
  let base: SimulatedClock
  let looks = Atomic<Int>(0)
  init(base: SimulatedClock) { self.base = base }
  func wallMilliseconds() -> Int64 { base.wallMilliseconds() }
  func monotonicNanoseconds() -> UInt64 {
    looks.add(1, ordering: .relaxed)
    return base.monotonicNanoseconds()
  }
}

@Suite struct AnswersThatWaitForTheDisk {
  @Test func aSendIsAnsweredAfterItsSync() async throws {
    let failing = try await Failing()
    failing.disk.gate.close([.syncData])
    let send = failing.queue.startSend("c")
    let waiting = failing.queue.startReceive(10)
    await failing.disk.gate.arrival()
    // Nor does a receiver see what could still vanish.
    #expect(!send.isThere && !waiting.isThere)
    failing.disk.gate.open()
    #expect(try await waiting.value.texts == ["a", "b", "c"])
    #expect(try await send.value.count == 1)
    try await failing.store.close()
  }

  @Test func aRepeatedDeleteWaitsForTheFirst() async throws {
    for durability in [Durability.synced, .written] {
      let disk = GatedFileSystem()
      var bench = Bench()
      bench.fileSystem = disk
      bench.options.durability = durability
      let (store, queue) = try await bench.openWithQueue()
      try await queue.send("a")
      let handle = try #require(try await queue.receive().first).message.handle
      disk.gate.close([.write], pathSuffix: ".next")
      let first = Answer { store.delete([handle], from: queue.id, $0) }
      await disk.gate.arrival()
      let second = Answer { store.delete([handle], from: queue.id, $0) }
      #expect(!first.isThere && !second.isThere)
      disk.gate.open()
      try await first.value[0].get()
      try await second.value[0].get()
      try await store.close()
    }
  }
}
