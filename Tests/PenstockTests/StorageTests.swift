// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSystem
import PenstockTesting
import Testing

/// A store of small segments that keeps four waiting messages in memory.
private func smallBench(_ disk: SimulatedFileSystem = SimulatedFileSystem()) -> Bench {
  var bench = Bench(disk, segmentSize: 64 << 10)
  bench.options.window = 4
  return bench
}

private func text(_ number: Int) -> [UInt8] {
  Array("\(number) ".utf8) + [UInt8](repeating: 120, count: 1000)
}

private func number(_ lease: Lease) -> Int? {
  Int(lease.text.prefix { $0 != " " })
}

extension Bench {
  /// The state that the log gives, before a thread of the store goes on with it.
  fileprivate func replayedHash() throws -> UInt64 {
    let (store, driver) = try Store.openDriven(
      at: path, options: options,
      environment: StoreEnvironment(fileSystem: fileSystem, clock: clock, random: random))
    let hash = store.stateHash
    store.close { _ in }
    while !driver.isOver { for worker in driver.due { driver.turn(worker) } }
    return hash
  }

  /// Closes a store and opens it again, and compares what it holds.
  fileprivate func reopen(_ store: Store) async throws -> (Store, Queue) {
    try await store.close()
    #expect(store.brokenInvariant == nil)
    #expect(try replayedHash() == store.stateHash)
    return try await openWithQueue()
  }
}

extension Queue {
  fileprivate func send(numbers: Range<Int>) async throws {
    for start in stride(from: numbers.lowerBound, to: numbers.upperBound, by: 10) {
      let results = try await send(
        batch: (start..<min(start + 10, numbers.upperBound)).map {
          SendEntry(MessageContent(body: text($0)))
        })
      for result in results { _ = try result.get() }
    }
  }

  /// Receives all that is visible, in the order it came.
  fileprivate func receiveAll(
    deleting: Bool = false, visibilityTimeout: Duration = .seconds(600)
  ) async throws -> [Int] {
    var found: [Int] = []
    while true {
      let leases = try await receive(maximum: 10, visibilityTimeout: visibilityTimeout)
      if leases.isEmpty { return found }
      found += leases.map { number($0) ?? -1 }
      guard deleting else { continue }
      for result in try await delete(leases.map(\.message.handle)) { try result.get() }
    }
  }
}

@Suite struct ABacklog {
  @Test func comesInOrderAlsoAfterRestarts() async throws {
    let bench = smallBench()
    var (store, queue) = try await bench.openWithQueue()
    try await queue.send(numbers: 0..<300)
    #expect(store.storage.messagesInMemory < 30)
    #expect(try await queue.countsList == [300, 0, 0])
    var found: [Int] = []
    while found.count < 300 {
      for lease in try await queue.receive(maximum: 7) {
        found.append(number(lease) ?? -1)
        try await lease.delete()
      }
      #expect(store.brokenInvariant == nil)
      guard found.count % 70 == 0 else { continue }
      (store, queue) = try await bench.reopen(store)
    }
    #expect(found == Array(0..<300))
    #expect(try await queue.countsList == [0, 0, 0])
    try await store.close()
  }

  @Test func isPurgedWhole() async throws {
    let bench = smallBench()
    var (store, queue) = try await bench.openWithQueue()
    try await queue.send(numbers: 0..<200)
    _ = try await queue.receive(maximum: 3)
    try await queue.purge()
    #expect(try await queue.countsList == [0, 0, 0])
    try await queue.send(numbers: 200..<260)
    try await store.close()
    (store, queue) = try await bench.openWithQueue()
    #expect(try await queue.receiveAll() == Array(200..<260))
    try await store.close()
  }

  @Test func expires() async throws {
    let bench = smallBench()
    let (store, queue) = try await bench.openWithQueue()
    try await queue.change(QueueSettingsChange { $0.retention = .seconds(60) })
    try await queue.send(numbers: 0..<100)
    bench.pass(.seconds(40), store)
    try await queue.send(numbers: 100..<150)
    bench.pass(.seconds(30), store)
    #expect(try await queue.receiveAll() == Array(100..<150))
    bench.pass(.seconds(40), store)
    try await eventually { try await queue.countsList == [0, 0, 0] }
    try await store.close()
  }

  /// What is delayed or comes back is not parked, and nothing is lost between the two.
  @Test func mixesWithDelaysAndReturns() async throws {
    let bench = smallBench()
    let (store, queue) = try await bench.openWithQueue()
    try await queue.send(numbers: 0..<50)
    for number in 50..<60 { try await queue.send(text(number), delay: .seconds(10)) }
    try await queue.send(numbers: 60..<90)
    let first = try await queue.receive(maximum: 10, visibilityTimeout: .seconds(5))
    #expect(first.map { number($0) } == Array(0..<4))
    bench.pass(.seconds(20), store)
    #expect(try await Set(queue.receiveAll()) == Set(0..<90))
    try await store.close()
  }
}

@Suite struct Checkpoints {
  private func filled(_ bench: Bench) async throws -> UInt64 {
    let (store, queue) = try await bench.openWithQueue()
    for round in 0..<20 {
      try await queue.send(numbers: round * 20..<round * 20 + 20)
      for lease in try await queue.receive(maximum: 10) { try await lease.delete() }
    }
    try await eventually { store.storage.checkpoints == 2 }
    try await store.close()
    return store.stateHash
  }

  @Test func shortenTheNextStart() async throws {
    let bench = smallBench()
    let hash = try await filled(bench)
    #expect(try bench.replayedHash() == hash)
    let store = try await bench.open()
    let report = store.recovery
    #expect(report.checkpointLSN != nil)
    #expect(report.bytes < 200 << 10)
    #expect(report.description.contains("checkpoint"))
    try await store.close()
  }

  @Test(arguments: [1, 2]) func areNotNeeded(damaged: Int) async throws {
    let disk = SimulatedFileSystem()
    let bench = smallBench(disk)
    let hash = try await filled(bench)
    let names = try disk.list("/store").filter { $0.hasSuffix(".checkpoint") }.sorted()
    #expect(names.count == 2)
    for name in names.suffix(damaged) { disk.flipBit(900, in: "/store/\(name)") }
    // Without any, the log from its start would do; compaction has removed that.
    if damaged == 2 {
      #expect(await code { _ = try await bench.open() } == .corrupted)
      #expect(try disk.list("/store").filter { $0.hasSuffix(".checkpoint.damaged") }.count == 2)
      // Nor is the next start taken in.
      #expect(await code { _ = try await bench.open() } == .corrupted)
      return
    }
    #expect(try bench.replayedHash() == hash)
    let store = try await bench.open()
    try await store.close()
  }
}

@Suite struct DiskUse {
  /// Waits until disk use is under its bound; an idle store ends a segment for that after a while.
  private func waitForRoom(_ store: Store, _ bench: Bench) async throws {
    try await eventually {
      bench.pass(.milliseconds(1), store)
      let storage = store.storage
      return storage.diskBytes <= storage.diskBound
    }
  }

  /// One message of every twenty is kept, so that something lives in every segment.
  @Test func staysUnderItsBoundWhatIsKeptStays() async throws {
    let disk = SimulatedFileSystem()
    let bench = smallBench(disk)
    var (store, queue) = try await bench.openWithQueue()
    var kept: [Int] = []
    for round in 0..<100 {
      try await queue.send(numbers: round * 20..<round * 20 + 20)
      var leases: [Lease] = []
      while leases.count < 20 {
        leases += try await queue.receive(
          maximum: 20, wait: .seconds(20), visibilityTimeout: .seconds(40_000))
      }
      kept.append(round * 20)
      let done = leases.filter { number($0) != round * 20 }
      for result in try await queue.delete(done.map(\.message.handle)) { try result.get() }
      if round % 25 == 24 {
        try await waitForRoom(store, bench)
        (store, queue) = try await bench.reopen(store)
      }
    }
    #expect(try await queue.countsList == [0, 100, 0])
    bench.pass(.seconds(50_000), store)
    #expect(try await queue.receiveAll().sorted() == kept)
    try await store.close()
  }

  @Test func isFreedByADrainAndByAPurge() async throws {
    let bench = smallBench()
    let (store, queue) = try await bench.openWithQueue()
    try await queue.send(numbers: 0..<1000)
    #expect(store.storage.segments > 12)
    #expect(try await queue.receiveAll(deleting: true) == Array(0..<1000))
    try await waitForRoom(store, bench)
    try await queue.send(numbers: 0..<1000)
    try await queue.purge()
    try await waitForRoom(store, bench)
    try await store.close()
  }

  /// An idle queue of many messages lies before a busy one.
  @Test func doesNotGrowBehindAnIdleQueue() async throws {
    let bench = smallBench()
    let (store, busy) = try await bench.openWithQueue()
    let idle = try await store.queue("dead-letters")
    try await idle.send(numbers: 0..<500)
    for round in 0..<100 {
      try await busy.send(numbers: round * 20..<round * 20 + 20)
      #expect(try await busy.receiveAll(deleting: true).count == 20)
    }
    try await waitForRoom(store, bench)
    #expect(try await idle.receiveAll() == Array(0..<500))
    try await store.close()
  }
}

@Suite struct FIFOGroups {
  /// A head that expires while it is leased lets who waits have what stands behind it.
  @Test func goOnWhenTheirHeadExpires() async throws {
    let bench = smallBench()
    let store = try await bench.open()
    let queue = try await store.queue(
      "orders", QueueSettings(retention: .seconds(60), isFIFO: true))
    try await queue.send("a", group: "g")
    _ = try await queue.receive(visibilityTimeout: .seconds(36_000))
    bench.pass(.seconds(45), store)
    try await queue.send("b", group: "g")
    let waiting = queue.startReceive(wait: .seconds(20))
    bench.pass(.seconds(17), store)
    #expect(try await waiting.value.first?.content.body == Array("b".utf8))
    try await store.close()
  }

  /// Groups, their order, a lease and what is deduplicated stay through compaction, checkpoints and
  /// restarts.
  @Test func stayBehindABusyQueue() async throws {
    let bench = smallBench()
    var store = try await bench.open()
    func fifo() async throws -> Queue {
      try await store.queue("orders", QueueSettings(isFIFO: true))
    }
    var queue = try await fifo()
    for number in 0..<40 {
      let group = "group \(number % 4)"
      try await queue.send(text(number), group: group, deduplicationID: "\(number)")
    }
    let leased = try #require(try await queue.receive(visibilityTimeout: .seconds(36_000)).first)
    #expect(number(leased) == 0)
    var busy = try await store.queue("busy")
    try await eventually {
      try await busy.send(numbers: 0..<20)
      _ = try await busy.receiveAll(deleting: true)
      return store.storage.checkpoints == 2 && store.lastLSN > 4000
    }
    // The groups lived in segments that are gone.
    #expect(store.metrics().copiedBytes > 40 * 100 && store.metrics().removedSegments > 0)
    try await store.close()
    #expect(try bench.replayedHash() == store.stateHash)
    store = try await bench.open()
    (queue, busy) = (try await fifo(), try await store.queue("busy"))
    #expect(store.brokenInvariant == nil)
    let first = try await queue.send("again", group: "group 0", deduplicationID: "0")
    #expect(first == leased.message.id)
    let found = try await queue.receiveAll(visibilityTimeout: .seconds(36_000))
    #expect(found.count == 30 && !found.contains { $0 % 4 == 0 })
    for group in 1..<4 {
      #expect(found.filter { $0 % 4 == group } == (0..<10).map { 4 * $0 + group })
    }
    try await queue.delete([leased.message.handle])[0].get()
    #expect(try await queue.receiveAll() == (1..<10).map { 4 * $0 })
    try await store.close()
  }
}

@Suite struct ADamagedMessage {
  /// A store with twenty messages in a sealed segment, one of them damaged on disk.
  private func damaged() async throws -> (Bench, Store, Queue, SimulatedFileSystem) {
    let disk = SimulatedFileSystem()
    var bench = smallBench(disk)
    bench.options.recentBytes = 0
    let (store, queue) = try await bench.openWithQueue()
    try await queue.send(numbers: 0..<100)
    let pattern = Array("7 xxxx".utf8)
    let (name, place) = try #require(
      try disk.list("/store").filter { $0.hasSuffix(".seg") }.sorted().lazy.compactMap { name in
        let bytes = disk.contents(of: "/store/\(name)") ?? []
        return bytes.indices.first {
          bytes[$0...].starts(with: pattern) && !(48...57).contains(bytes[$0 - 1])
        }.map { (name, $0) }
      }.first)
    disk.flipBit((place + 4) * 8, in: "/store/\(name)")
    return (bench, store, queue, disk)
  }

  @Test func isSetAsideWithItsEvidence() async throws {
    var (bench, store, queue, disk) = try await damaged()
    var found: [Int] = []
    for try await lease in queue.leases() {
      found.append(number(lease) ?? -1)
      try await lease.delete()
      if found.count == 99 { break }
    }
    #expect(found == Array(0..<100).filter { $0 != 7 })
    #expect(try await queue.describe().setAside == 1)
    #expect(store.storage.setAside == 1)
    #expect(bench.lines.contains("is damaged and was set aside"))
    let evidence = try #require(
      try disk.list("/store").first { $0.contains(".seg.damaged-") })
    #expect(disk.contents(of: "/store/\(evidence)")?.isEmpty == false)
    try await store.close()
    (store, queue) = try await bench.openWithQueue()
    #expect(try await queue.describe().setAside == 1)
    #expect(try await queue.countsList == [0, 0, 0])
    try await store.close()
  }

  @Test func aReceiveOfItAloneFailsOnce() async throws {
    let (_, store, queue, _) = try await damaged()
    for number in 0..<7 {
      let lease = try #require(try await queue.receive().first)
      #expect(lease.text.hasPrefix("\(number) "))
    }
    #expect(await code { _ = try await queue.receive() } == .unreadableMessage)
    #expect(try await queue.receive().first?.text.hasPrefix("8 ") == true)
    try await store.close()
  }

  @Test func isFoundByVerifying() async throws {
    let (_, store, queue, _) = try await damaged()
    let report = try await store.verify()
    #expect(report.damage.count == 1)
    #expect(report.damage.first?.contains(".seg") == true)
    #expect(report.segments > 0)
    #expect(store.storage.damagedSegments == 1)
    // Nothing is taken out: that is for whoever reads it.
    #expect(try await queue.countsList == [100, 0, 0])
    try await store.close()
  }

  @Test func isFoundByTheScrubber() async throws {
    var (bench, store, _, _) = try await damaged()
    try await store.close()
    bench.options.scrubBytesPerSecond = 1 << 30
    store = try await bench.open()
    try await eventually {
      // It rests between segments.
      bench.pass(.milliseconds(10), store)
      return bench.lines.contains("found damage")
    }
    #expect(store.storage.damagedSegments == 1)
    try await store.close()
  }

  /// Compaction verifies what it copies.
  @Test func isNotCopied() async throws {
    let (bench, store, queue, disk) = try await damaged()
    for _ in 0..<6 { _ = try await queue.receive(visibilityTimeout: .seconds(36_000)) }
    let other = try await store.queue("busy")
    // Nothing but eight messages lives in the damaged segment.
    try await eventually {
      try await other.send(numbers: 0..<10)
      _ = try await other.receiveAll(deleting: true)
      return store.storage.setAside == 1
    }
    #expect(bench.lines.contains("is damaged and was set aside"))
    #expect(try disk.list("/store").contains { $0.contains(".seg.damaged-") })
    #expect(try await queue.receiveAll() == Array(6..<100).filter { $0 != 7 })
    try await store.close()
  }
}

@Suite struct ALargeBody {
  @Test func of64MebibytesIsSentReceivedAndKept() async throws {
    try await withTemporaryDirectory { directory in
      let bench = Bench(PosixFileSystem(), path: directory, segmentSize: 144 << 20)
      var (store, queue) = try await bench.openWithQueue()
      let size = 64 << 20
      try await queue.change(QueueSettingsChange { $0.maximumMessageBytes = size })
      var body = [UInt8](repeating: 0x5a, count: size)
      for index in stride(from: 0, to: size, by: 4099) {
        body[index] = UInt8(truncatingIfNeeded: index)
      }
      let sent = try await queue.send(body)
      #expect(await code { try await queue.send(body + [1]) } == .messageTooLarge)
      try await store.close()
      store = try await bench.open()
      queue = try #require(store.existingQueue("q"))
      let lease = try #require(try await queue.receive().first)
      #expect(lease.message.id == sent)
      #expect(lease.message.content.body == body)
      try await lease.delete()
      try await store.close()
    }
  }
}
