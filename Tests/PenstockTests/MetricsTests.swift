// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Synchronization
import Testing

/// What a store told its `onEvent`.
private final class Events: Sendable {
  private let all = Mutex<[StoreEvent]>([])
  func take(_ event: StoreEvent) { all.withLock { $0.append(event) } }
  func count(_ isWanted: (StoreEvent) -> Bool) -> Int { all.withLock { $0.count(where: isWanted) } }
  var removedSegments: Int {
    all.withLock {
      $0.reduce(0) {
        if case .segmentsRemoved(let numbers) = $1 { $0 + numbers.count } else { $0 }
      }
    }
  }
  func contains(_ isWanted: (StoreEvent) -> Bool) -> Bool { count(isWanted) > 0 }
}

extension Bench {
  fileprivate func listening() -> (Bench, Events) {
    let events = Events()
    var bench = self
    bench.options.onEvent = { events.take($0) }
    return (bench, events)
  }
}

@Suite struct MetricsOfAQueue {
  @Test func countWhatWasDone() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    let attribute = MessageAttribute(name: "n", type: "String", value: .string("v"))
    try await queue.send("12345", attributes: [attribute])
    for text in ["a", "b", "c"] { try await queue.send(text) }
    try await queue.send("later", delay: .seconds(60))
    let leases = try await queue.receive(maximum: 2)
    try await leases[0].delete()
    #expect(try await queue.receive(maximum: 2).count == 2)
    #expect(try await queue.receive().isEmpty)
    let long = queue.startReceive(wait: .seconds(5))
    bench.pass(.seconds(5), store)
    #expect(try await long.value.isEmpty)
    // One that is cancelled found nothing because nobody waited for it.
    let ticket = store.receive(.init(wait: .seconds(5)), from: queue.id) { _ in }
    store.cancel(ticket)

    let metrics = try queue.metrics()
    #expect(metrics.traffic.sent == 5)
    #expect(metrics.traffic.sentBytes == 5 + 8 + 3 + 5)
    #expect(metrics.traffic.received == 4)
    #expect(metrics.traffic.deleted == 1)
    #expect(metrics.traffic.emptyReceives == 2)
    #expect(metrics.counts == (try await queue.counts))
    #expect([metrics.counts.visible, metrics.counts.leased, metrics.counts.delayed] == [0, 3, 1])
    #expect(metrics.bytes > 0)
    try await queue.purge()
    #expect(try queue.metrics().traffic.purged == 4)
    #expect(try queue.metrics().oldestSince == nil)

    try await queue.remove()
    #expect(store.metrics(of: queue.id) == nil)
    #expect(throws: PenstockError.self) { try queue.metrics() }
    let again = try await store.queue("q")
    #expect(try again.metrics().traffic == QueueTraffic())
    try await store.close()
  }

  @Test func countFromTheOpeningOn() async throws {
    let bench = Bench()
    var (store, queue) = try await bench.openWithQueue()
    for text in ["a", "b"] { try await queue.send(text) }
    _ = try await queue.receive()
    try await store.close()
    (store, queue) = try await bench.openWithQueue()
    #expect(try queue.metrics().traffic == QueueTraffic())
    #expect(try queue.metrics().counts.total == 2)
    try await store.close()
  }

  @Test func countExpiredAndDeadLettersAndRepeatedSends() async throws {
    let (bench, events) = Bench().listening()
    let (store, queue) = try await bench.openWithQueue()
    let dead = try await store.queue("dead", .init(retention: .seconds(100)))
    try await queue.change(
      .init {
        $0.deadLetterQueue = "dead"
        $0.maximumReceives = 1
      })
    for text in ["a", "b", "c"] { try await queue.send(text) }
    _ = try await queue.receive(maximum: 3, visibilityTimeout: .zero)
    #expect(try await queue.receive(maximum: 3).isEmpty)
    #expect(try queue.metrics().traffic.deadLettered == 3)
    #expect(try dead.metrics().traffic.sent == 0)
    #expect(
      events.count {
        if case .deadLettered(queue.id, dead.id, 3) = $0 { true } else { false }
      } == 1)
    // As old as the move, though retention counts from the send.
    bench.pass(.seconds(50), store)
    #expect(try dead.metrics().oldestAge == .seconds(50))
    bench.pass(.seconds(51), store)
    try await eventually { try await dead.counts.total == 0 }
    #expect(try dead.metrics().traffic.expired == 3)
    #expect(try dead.metrics().traffic.deleted == 0)

    try await queue.change(.init { $0.retention = .seconds(10) })
    for text in ["d", "e"] { try await queue.send(text) }
    bench.pass(.seconds(11), store)
    try await eventually { try await queue.counts.total == 0 }
    #expect(try queue.metrics().traffic.expired == 2)

    let fifo = try await store.queue("f", .init(isFIFO: true))
    for _ in 0..<3 { try await fifo.send("x", group: "g", deduplicationID: "1") }
    try await store.transaction {
      $0.send([1], to: fifo, group: "g", deduplicationID: "1")
    }
    #expect(try fifo.metrics().traffic.sent == 1)
    #expect(try fifo.metrics().traffic.duplicates == 3)
    try await store.close()
  }

  @Test func tellTheAgeOfTheOldestMessageWhateverItsState() async throws {
    var bench = Bench(segmentSize: 64 << 10)
    bench.options.window = 4
    let (store, queue) = try await bench.openWithQueue()
    func age() throws -> Duration? { try queue.metrics().oldestAge }
    #expect(try age() == nil)
    // More than are in memory, a second apart.
    for index in 0..<20 {
      try await queue.send("\(index)")
      bench.pass(.seconds(1), store)
    }
    #expect(try age() == .seconds(20))
    let leases = try await queue.receive(maximum: 2)
    #expect(try age() == .seconds(20))
    try await leases[0].delete()
    #expect(try age() == .seconds(19))
    try await leases[1].release()
    #expect(try age() == .seconds(19))
    for count in [18, 17] {
      let lease = try #require(try await queue.receive().first)
      try await lease.delete()
      #expect(try age() == .seconds(count))
    }
    // Every message was sent a second behind the one before.
    while let lease = try await queue.receive(wait: .seconds(20)).first {
      try await lease.delete()
      let left = try queue.metrics().counts.total
      #expect(try age() == (left == 0 ? nil : .seconds(left)))
      if left == 0 { break }
    }
    let fifo = try await store.queue("f", .init(isFIFO: true))
    for group in ["a", "b"] {
      try await fifo.send("x", group: group)
      bench.pass(.seconds(5), store)
    }
    let first = try #require(try await fifo.receive().first)
    #expect(try fifo.metrics().oldestAge == .seconds(10))
    try await first.delete()
    #expect(try fifo.metrics().oldestAge == .seconds(5))
    try await store.close()
  }
}

@Suite struct MetricsOfAStore {
  @Test func countCommitsAndSyncsAndWhoWaits() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    let before = store.metrics()
    #expect(before.recovery.end == .created)
    for _ in 0..<10 { try await queue.send("x") }
    let entries = (0..<10).map { SendEntry(MessageContent(body: [UInt8($0)])) }
    for result in try await queue.send(batch: entries) { _ = try result.get() }
    let after = store.metrics()
    #expect(after.commits - before.commits == 11)
    #expect(after.records.sum - before.records.sum == 20)
    #expect(after.records.maximum == 10)
    #expect(after.syncs.count - before.syncs.count == 11)
    #expect(after.commitWaits.count - before.commitWaits.count == 11)
    #expect(after.bytes > before.bytes)
    #expect(after.waitingReceives == 0)
    _ = try await queue.receive(maximum: 20)
    let waiting = queue.startReceive()
    #expect(store.metrics().waitingReceives == 1)
    try await store.close()
    #expect(try await waiting.value.isEmpty)
  }

  @Test func tellHowLongASyncAndTheWaitForItTook() async throws {
    var (bench, events) = Bench().listening()
    let disk = GatedFileSystem()
    bench.fileSystem = disk
    let (store, queue) = try await bench.openWithQueue()
    let fast = store.metrics()
    #expect(!events.contains { if case .slowSync = $0 { true } else { false } })
    disk.gate.close([.syncData])
    let send = queue.startSend("x")
    await disk.gate.arrival()
    #expect(store.metrics().waitingForCommit == 1)
    bench.simulatedClock.advance(by: .seconds(3))
    disk.gate.open()
    _ = try await send.value
    let slow = store.metrics()
    #expect(slow.syncs.maximum == 3_000_000_000)
    #expect(slow.commitWaits.maximum == 3_000_000_000)
    #expect(slow.syncs.sum - fast.syncs.sum == 3_000_000_000)
    #expect(events.contains { if case .slowSync(.seconds(3)) = $0 { true } else { false } })
    try await store.close()
  }
}

@Suite struct Histograms {
  @Test func areAtMostAnEighthTooHigh() {
    for value: UInt64 in [0, 1, 7, 8, 9, 15, 16, 17, 100, 1000, 123_456, 1 << 30, 1 << 40] {
      var histogram = Histogram()
      histogram.record(value)
      // Not cut by the largest.
      histogram.record(.max)
      let told = histogram.quantile(0.5)
      #expect(told >= value && told <= value + value / 8, "\(value) is told as \(told)")
      #expect(histogram.quantile(1) == .max)
    }
  }

  @Test func tellQuantiles() {
    var histogram = Histogram()
    #expect(histogram.quantile(0.5) == 0)
    for value in 1...1000 { histogram.record(UInt64(value)) }
    #expect(histogram.count == 1000)
    #expect(histogram.sum == 500_500)
    #expect(histogram.maximum == 1000)
    #expect((500...563).contains(histogram.quantile(0.5)))
    #expect((990...1000).contains(histogram.quantile(0.99)))
    #expect(histogram.quantile(0) == 1)
    #expect(histogram.quantile(1) == 1000)
  }
}

@Suite struct EventsOfAStore {
  @Test func tellOfRecoverySegmentsCheckpointsAndRemoval() async throws {
    let (bench, events) = Bench(segmentSize: 64 << 10).listening()
    let (store, queue) = try await bench.openWithQueue()
    #expect(
      events.count {
        if case .recovered(let report) = $0 { report.end == .created } else { false }
      } == 1)
    let body = [UInt8](repeating: 7, count: 8000)
    func removed(_ event: StoreEvent) -> Bool {
      if case .segmentsRemoved(let numbers) = event { !numbers.isEmpty } else { false }
    }
    var sent = 0
    while !events.contains(removed), sent < 2000 {
      try await queue.send(body)
      sent += 1
      for lease in try await queue.receive() { try await lease.delete() }
    }
    #expect(events.contains(removed))
    #expect(
      events.contains {
        if case .checkpointWritten(let lsn, let bytes) = $0 { lsn > 1 && bytes > 0 } else { false }
      })
    #expect(events.count { if case .segmentBegun = $0 { true } else { false } } > 2)
    // They are counted just after they are told.
    try await eventually {
      store.metrics().removedSegments == events.removedSegments
    }
    try await store.close()
  }

  @Test func tellOfAFullDiskAndOfRoom() async throws {
    let disk = SimulatedFileSystem()
    let (bench, events) = Bench(disk).listening()
    let (store, queue) = try await bench.openWithQueue()
    disk.capacity = 600 << 10
    while await code({ try await queue.send([UInt8](repeating: 7, count: 3000)) }) == nil {}
    #expect(events.contains { if case .full = $0 { true } else { false } })
    disk.capacity = nil
    try await eventually { events.contains { if case .roomAgain = $0 { true } else { false } } }
    try await store.close()
  }

  @Test func tellOfAFailureOnceAndMayCallTheStore() async throws {
    let disk = SimulatedFileSystem()
    var bench = Bench(disk)
    let events = Events()
    let seen = Mutex<Store?>(nil)
    bench.options.onEvent = { event in
      // The engine's lock is free.
      _ = seen.withLock { $0 }?.metrics()
      events.take(event)
    }
    let (store, queue) = try await bench.openWithQueue()
    seen.withLock { $0 = store }
    disk.inject(Fault([.syncData], isPermanent: true, errno: 5))
    #expect(await code { try await queue.send("x") } == .outcomeUnknown)
    try await eventually { events.contains { if case .failed = $0 { true } else { false } } }
    #expect(await code { try await store.close() } == .storeFailed)
    #expect(events.count { if case .failed = $0 { true } else { false } } == 1)
    seen.withLock { $0 = nil }
  }
}
