// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Testing

/// A queue whose messages go to `dead` after some receives.
private struct Pair {
  let bench: Bench
  var store: Store
  var queue: Penstock.Queue
  var dead: Penstock.Queue

  init(_ bench: Bench = Bench(), receives: Int = 2, isFIFO: Bool = false) async throws {
    self.bench = bench
    store = try await bench.open()
    dead = try await store.queue("dead", QueueSettings(isFIFO: isFIFO))
    queue = try await store.queue(
      "orders",
      QueueSettings(isFIFO: isFIFO) {
        $0.deadLetterQueue = "dead"
        $0.maximumReceives = receives
      })
  }

  mutating func restart() async throws {
    try await store.close()
    store = try await bench.open()
    queue = try #require(store.existingQueue("orders"))
    dead = try #require(store.existingQueue("dead"))
  }

  /// Lets every lease end.
  func pass() { bench.simulatedClock.advance(by: .seconds(30)) }
}

@Suite struct DeadLetters {
  @Test(arguments: [false, true])
  func aMessageKeepsWhatItWasAndSaysWhereItCameFrom(isFIFO: Bool) async throws {
    var pair = try await Pair(isFIFO: isFIFO)
    let id = try await pair.queue.send("poison", group: "g")
    let sent = pair.store.now
    for _ in 0..<2 {
      #expect(try await pair.queue.receive(wait: .zero).count == 1)
      pair.pass()
    }
    let moved = pair.store.now
    #expect(try await pair.queue.receive(wait: .zero).isEmpty)
    for round in 0..<3 {
      let lease = try #require(try await pair.dead.receive(wait: .zero).first)
      #expect(lease.message.id == id && lease.text == "poison")
      #expect(lease.message.content.groupID == "g")
      #expect(lease.message.receiveCount == 3 + round)
      #expect(lease.message.sentAt == (isFIFO ? moved : sent))
      #expect(lease.message.firstReceivedAt == sent)
      let origin = try #require(lease.message.origin)
      #expect(origin.queue == "orders" && origin.reason == .receivedTooOften)
      #expect(origin.movedAt == moved)
      pair.pass()
      try await pair.restart()
    }
    #expect(try await pair.queue.describe().counts.total == 0)
    try await pair.store.close()
  }

  /// It looked far behind what it moved, and gave all that it found.
  @Test func aReceiveThatMovesGivesNoMoreThanItWasAskedFor() async throws {
    let pair = try await Pair(receives: 1)
    try await pair.queue.send("poison")
    _ = try await pair.queue.receive(wait: .zero, visibilityTimeout: .zero)
    for _ in 0..<5 { try await pair.queue.send("m") }
    #expect(try await pair.queue.receive(maximum: 2, wait: .zero).count == 2)
    #expect(try await pair.dead.describe().counts.total == 1)
    try await pair.store.close()
  }

  @Test func whoHasALeaseMayRejectTheMessage() async throws {
    let pair = try await Pair(receives: 10)
    try await pair.queue.send("m")
    let lease = try #require(try await pair.queue.receive(wait: .zero).first)
    try await lease.reject()
    #expect(await code { try await lease.reject() } == .leaseLost)
    let dead = try #require(try await pair.dead.receive(wait: .zero).first)
    #expect(dead.message.origin?.reason == .rejected)
    #expect(await code { try await dead.reject() } == .deadLetterQueueNotFound)
    try await pair.store.close()
  }

  /// A moved message may expire before older ones of its new queue.
  @Test func retentionGoesOnFromTheSend() async throws {
    var pair = try await Pair(receives: 1)
    try await pair.queue.change(.init { $0.retention = .seconds(1000) })
    try await pair.dead.change(.init { $0.retention = .seconds(1000) })
    try await pair.queue.send("early")
    #expect(try await pair.queue.receive(wait: .zero, visibilityTimeout: .zero).count == 1)
    pair.bench.simulatedClock.advance(by: .seconds(600))
    try await pair.dead.send("late")
    #expect(try await pair.queue.receive(wait: .zero).isEmpty)
    #expect(try await pair.dead.describe().counts.visible == 2)
    try await pair.restart()
    pair.bench.simulatedClock.advance(by: .seconds(399))
    #expect(try await pair.dead.describe().counts.visible == 2)
    pair.bench.simulatedClock.advance(by: .seconds(1))
    #expect(try await pair.dead.receive(maximum: 10, wait: .zero).map(\.text) == ["late"])
    #expect(try await pair.dead.describe().counts.total == 1)
    #expect(pair.store.brokenInvariant == nil)
    try await pair.store.close()
  }

  /// It was taken for one of those that had expired there before the retention grew.
  @Test func aMovedMessageMayBeOlderThanWhatHasExpired() async throws {
    let pair = try await Pair(receives: 1)
    try await pair.dead.change(.init { $0.retention = .seconds(10) })
    try await pair.queue.send("old")
    _ = try await pair.queue.receive(wait: .zero, visibilityTimeout: .zero)
    pair.bench.simulatedClock.advance(by: .seconds(100))
    try await pair.dead.change(.init { $0.retention = .seconds(1000) })
    #expect(try await pair.queue.receive(wait: .zero).isEmpty)
    #expect(try await pair.dead.receive(wait: .zero).map(\.text) == ["old"])
    #expect(pair.store.brokenInvariant == nil)
    try await pair.store.close()
  }

  /// What is purged is what was there, also what came from elsewhere with an older send.
  @Test func aPurgeTakesWhatCameBeforeIt() async throws {
    let pair = try await Pair(receives: 1)
    for _ in 0..<2 { try await pair.queue.send("m") }
    _ = try await pair.queue.receive(maximum: 1, wait: .zero, visibilityTimeout: .zero)
    try await pair.dead.purge()
    #expect(try await pair.queue.receive(maximum: 1, wait: .zero).count == 1)
    #expect(try await pair.dead.describe().counts.visible == 1)
    try await pair.dead.purge()
    #expect(try await pair.dead.describe().counts.total == 0)
    #expect(pair.store.brokenInvariant == nil)
    try await pair.store.close()
  }

  @Test func queuesThatNameEachOtherShuttleAndServeOthers() async throws {
    let pair = try await Pair(receives: 1)
    try await pair.dead.change(
      .init {
        $0.deadLetterQueue = "orders"
        $0.maximumReceives = 1
      })
    for _ in 0..<20 { try await pair.queue.send("m") }
    _ = try await pair.queue.receive(maximum: 20, wait: .zero, visibilityTimeout: .zero)
    async let waiting = pair.queue.receive(wait: .seconds(20))
    async let other = pair.dead.receive(wait: .seconds(20))
    while pair.store.metrics().waitingReceives < 2 { await Task.yield() }
    try await pair.queue.send("fresh")
    #expect(try await waiting.first?.text == "fresh")
    try await pair.dead.send("fresh")
    #expect(try await other.first?.text == "fresh")
    let counts = [try await pair.queue.describe().counts, try await pair.dead.describe().counts]
    #expect(counts.map(\.total).reduce(0, +) == 22)
    #expect(pair.store.brokenInvariant == nil)
    try await pair.store.close()
  }

  @Test func thousandsAreMovedByOneLongPoll() async throws {
    let pair = try await Pair(receives: 1)
    for _ in 0..<3 {
      _ = try await pair.queue.send(
        batch: (0..<1000).map { _ in SendEntry(MessageContent(body: [1])) })
    }
    var received = 0
    while received < 3000 {
      received += try await pair.queue.receive(maximum: 1000, wait: .seconds(20)).count
    }
    pair.pass()
    try await pair.queue.send("good")
    let lease = try await pair.queue.receive(wait: .seconds(20))
    #expect(lease.first?.text == "good")
    #expect(try await pair.dead.describe().counts.visible == 3000)
    #expect(pair.store.brokenInvariant == nil)
    try await pair.store.close()
  }

  @Test func compactionAndCheckpointsKeepWhereTheyCameFrom() async throws {
    var pair = try await Pair(receives: 1)
    for number in 0..<40 { try await pair.queue.send("message \(number)") }
    for _ in 0..<2 {
      _ = try await pair.queue.receive(maximum: 40, wait: .zero, visibilityTimeout: .zero)
    }
    let other = try await pair.store.queue("other")
    for _ in 0..<60 {
      try await other.send([UInt8](repeating: 7, count: 30_000))
      let leases = try await other.receive(maximum: 10, wait: .zero)
      for lease in leases { try await lease.delete() }
    }
    try await pair.restart()
    let leases = try await pair.dead.receive(maximum: 100, wait: .zero)
    #expect(Set(leases.map(\.text)) == Set((0..<40).map { "message \($0)" }))
    #expect(leases.allSatisfy { $0.message.origin?.queue == "orders" })
    #expect(pair.store.brokenInvariant == nil)
    try await pair.store.close()
  }

  /// Once one was moved, others are looked for: no more than were asked for.
  @Test func aReceiveBringsNoMoreThanWasAskedFor() async throws {
    let pair = try await Pair(receives: 1)
    for _ in 0..<50 { try await pair.queue.send("m") }
    #expect(try await pair.queue.receive(wait: .zero).count == 1)
    pair.pass()
    #expect(try await pair.queue.receive(wait: .zero).count == 1)
    #expect(try await pair.dead.describe().counts.total == 1)
    try await pair.store.close()
  }

  @Test func aQueueOfItsOwnDeadLettersComesToRest() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    try await queue.change(
      .init {
        $0.deadLetterQueue = queue.name
        $0.maximumReceives = 1
      })
    _ = try await queue.send(batch: (0..<1000).map { _ in SendEntry(MessageContent(body: [1])) })
    var received = 0
    while received < 1000 {
      received += try await queue.receive(maximum: 1000, wait: .seconds(20)).count
    }
    bench.simulatedClock.advance(by: .seconds(30))
    // Each is moved once for it, however many there are.
    #expect(try await queue.receive(wait: .zero).isEmpty)
    #expect(store.lastLSN < 4000)
    #expect(try await queue.describe().counts.visible == 1000)
    try await store.close()
  }

  /// What had expired in the new queue by another retention has not expired here.
  @Test func aLongerRetentionOfTheDeadLettersHolds() async throws {
    let day = Duration.seconds(86_400)
    let pair = try await Pair(receives: 1)
    try await pair.queue.change(.init { $0.retention = day * 14 })
    try await pair.queue.send("m")
    pair.bench.simulatedClock.advance(by: day * 5)
    try await pair.dead.change(.init { $0.retention = day * 14 })
    _ = try await pair.queue.receive(wait: .zero, visibilityTimeout: .zero)
    #expect(try await pair.queue.receive(wait: .zero).isEmpty)
    #expect(try await pair.dead.receive(wait: .zero).first?.text == "m")
    pair.bench.simulatedClock.advance(by: day * 9)
    pair.store.timeHasMoved()
    while try await pair.dead.describe().counts.total > 0 { await Task.yield() }
    try await pair.store.close()
  }

  /// No client comes by: the scheduler removes what has expired.
  @Test func anIdleStoreForgetsExpiredDeadLetters() async throws {
    let pair = try await Pair(receives: 1)
    try await pair.queue.send("m")
    try await pair.queue.send("m")
    _ = try await pair.queue.receive(maximum: 2, wait: .zero, visibilityTimeout: .zero)
    #expect(try await pair.queue.receive(wait: .zero).isEmpty)
    pair.bench.simulatedClock.advance(by: .seconds(345_600))
    pair.store.timeHasMoved()
    while pair.store.storage.messagesInMemory > 0 { await Task.yield() }
    try await pair.store.close()
  }

  @Test func policiesThatCannotWorkAreRefused() async throws {
    let pair = try await Pair()
    _ = try await pair.store.queue("fifo", QueueSettings(isFIFO: true))
    func failure(_ set: @escaping (inout QueueSettingsChange) -> Void) async
      -> PenstockError.Code?
    {
      await code { try await pair.dead.change(QueueSettingsChange(set)) }
    }
    #expect(await failure { $0.deadLetterQueue = "orders" } == .invalidArgument)
    let zero = await code { try await pair.queue.change(.init { $0.maximumReceives = 0 }) }
    #expect(zero == .invalidArgument)
    let none = await failure {
      $0.deadLetterQueue = "none"
      $0.maximumReceives = 1
    }
    #expect(none == .deadLetterQueueNotFound)
    let kind = await failure {
      $0.deadLetterQueue = "fifo"
      $0.maximumReceives = 1
    }
    #expect(kind == .invalidArgument)
    try await pair.queue.change(.init { $0.deadLetterSources = ["other"] })
    let refused = await failure {
      $0.deadLetterQueue = "orders"
      $0.maximumReceives = 1
    }
    #expect(refused == .deadLetterRefused)
    #expect(pair.store.deadLetterSources(of: "dead") == ["orders"])
    try await pair.store.close()
  }
}

@Suite struct Priorities {
  @Test func urgentOnesComeFirstAndNothingWaitsForEver() async throws {
    let bench = Bench()
    var (store, queue) = try await bench.openWithQueue()
    func send(_ text: String, _ priority: UInt8) async throws {
      let content = MessageContent(body: Array(text.utf8))
      for result in try await queue.send(batch: [SendEntry(content, priority: priority)]) {
        _ = try result.get()
      }
    }
    try await send("plain", 0)
    try await send("urgent", 1)
    try await send("most urgent", 2)
    // A minute for each priority: what is so much older comes first.
    bench.simulatedClock.advance(by: .seconds(61))
    try await send("later urgent", 1)
    try await send("later most urgent", 3)
    try await store.close()
    (store, queue) = try await bench.openWithQueue()
    let leases = try await queue.receive(maximum: 10, wait: .zero)
    #expect(
      leases.map(\.text) == [
        "most urgent", "later most urgent", "urgent", "plain", "later urgent",
      ])
    // They come back in the same order, and expire like others.
    bench.simulatedClock.advance(by: .seconds(30))
    #expect(try await queue.receive(wait: .zero).first?.text == "most urgent")
    bench.simulatedClock.advance(by: .seconds(345_600))
    #expect(try await queue.receive(wait: .zero).isEmpty)
    #expect(try await queue.describe().counts.total == 0)
    #expect(store.brokenInvariant == nil)
    try await store.close()
  }

  @Test func theyOvertakeWhatIsParked() async throws {
    var bench = Bench()
    bench.options.window = 4
    let (store, queue) = try await bench.openWithQueue()
    for number in 0..<50 { try await queue.send("\(number)") }
    let content = MessageContent(body: Array("urgent".utf8))
    _ = try await queue.send(batch: [SendEntry(content, priority: 1)])
    var found: [String] = []
    while let lease = try await queue.receive(wait: .zero).first { found.append(lease.text) }
    #expect(found == ["urgent"] + (0..<50).map(String.init))
    try await store.close()
  }

  @Test func groupsHaveNone() async throws {
    let store = try await Bench().open()
    let queue = try await store.queue("q", QueueSettings(isFIFO: true))
    let content = MessageContent(body: [1], groupID: "g")
    let results = try await queue.send(batch: [SendEntry(content, priority: 1)])
    #expect(await code { _ = try results[0].get() } == .invalidArgument)
    try await store.close()
  }
}

@Suite struct LimitsOfQueues {
  @Test func messagesBytesAndLeases() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    try await queue.change(
      .init {
        $0.maximumMessages = 3
        $0.maximumLeased = 2
      })
    for _ in 0..<3 { try await queue.send("m") }
    do {
      try await queue.send("m")
      Issue.record("a fourth message was taken")
    } catch {
      #expect(error.code == .queueFull && error.setting == .maximumMessages && error.limit == 3)
      #expect(error.family == .rejected)
    }
    let leases = try await queue.receive(maximum: 10, wait: .zero)
    #expect(leases.count == 2)
    #expect(await code { _ = try await queue.receive(wait: .zero) } == .tooManyLeased)
    async let waiting = queue.receive(wait: .seconds(20))
    while store.metrics().waitingReceives < 1 { await Task.yield() }
    try await leases[0].delete()
    #expect(try await waiting.count == 1)
    try await queue.send("m")
    try await queue.change(
      .init {
        $0.maximumMessages = 0
        $0.maximumBytes = 1
      })
    #expect(await code { try await queue.send("m") } == .queueFull)
    try await queue.purge()
    try await queue.send("m")
    #expect(await code { try await queue.send("m") } == .queueFull)
    try await store.close()
  }
}

@Suite struct Wakes {
  @Test func aChangeOfSettingsWakesThoseWhoCanBeServed() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    try await queue.change(.init { $0.maximumLeased = 1 })
    for _ in 0..<2 { try await queue.send("m") }
    #expect(try await queue.receive(wait: .zero).count == 1)
    async let waiting = queue.receive(wait: .seconds(20))
    while store.metrics().waitingReceives < 1 { await Task.yield() }
    try await queue.change(.init { $0.maximumLeased = 0 })
    #expect(try await waiting.count == 1)
    let fifo = try await store.queue("fifo", QueueSettings(delay: .seconds(900), isFIFO: true))
    try await fifo.send("m", group: "g")
    async let delayed = fifo.receive(wait: .seconds(20))
    while store.metrics().waitingReceives < 1 { await Task.yield() }
    try await fifo.change(.init { $0.delay = .zero })
    #expect(try await delayed.count == 1)
    try await store.close()
  }

  @Test func aRepetitionDoesNotQueueBehindOthers() async throws {
    let store = try await Bench().open()
    let queue = try await store.queue("fifo", QueueSettings(isFIFO: true))
    try await queue.send("m", group: "g")
    func receive() async throws -> [ReceivedMessage] {
      try await withCheckedThrowingContinuation { continuation in
        let request = ReceiveRequest(wait: .seconds(20), attemptID: "a")
        store.receive(request, from: queue.id) { continuation.resume(with: $0) }
      }
    }
    let first = try await receive()
    async let other = queue.receive(wait: .seconds(20))
    while store.metrics().waitingReceives < 1 { await Task.yield() }
    #expect(try await receive().map(\.handle) == first.map(\.handle))
    try await queue.delete([first[0].handle])[0].get()
    #expect(await code { _ = try await receive() } == .attemptOver)
    try await queue.send("n", group: "g")
    #expect(try await other.count == 1)
    try await store.close()
  }

  /// Messages that go from queue to queue wake who waits at the end.
  @Test func aChainOfDeadLettersWakesItsEnd() async throws {
    let store = try await Bench().open()
    let last = try await store.queue("last")
    let middle = try await store.queue(
      "middle",
      QueueSettings {
        $0.deadLetterQueue = "last"
        $0.maximumReceives = 1
      })
    let first = try await store.queue(
      "first",
      QueueSettings {
        $0.deadLetterQueue = "middle"
        $0.maximumReceives = 1
      })
    try await first.send("m")
    try await last.send("held")
    let lease = try #require(try await first.receive(wait: .zero).first)
    let held = try #require(try await last.receive(wait: .zero).first)
    async let waiting = last.receive(wait: .seconds(20))
    while store.metrics().waitingReceives < 1 { await Task.yield() }
    try await store.transaction { transaction in
      transaction.delete(held)
      transaction.reject(lease.message.handle)
    }
    #expect(try await middle.receive(wait: .zero).isEmpty)
    #expect(try await waiting.first?.text == "m")
    try await store.close()
  }
}

@Suite struct Transactions {
  @Test func stepsHappenTogetherAcrossQueues() async throws {
    let bench = Bench()
    var (store, queue) = try await bench.openWithQueue()
    let results = try await store.queue("results")
    try await queue.send("work")
    let lease = try #require(try await queue.receive(wait: .zero).first)
    let receipts = try await store.transaction { transaction in
      transaction.delete(lease.message.handle)
      transaction.send(SendEntry(MessageContent(body: Array("done".utf8))), to: results.id)
    }
    #expect(receipts.count == 1)
    try await store.close()
    (store, queue) = try await bench.openWithQueue()
    #expect(try await queue.describe().counts.total == 0)
    let found = try await #require(store.existingQueue("results")).receive(wait: .zero)
    #expect(found.map(\.text) == ["done"] && found.map(\.message.id) == receipts.map(\.id))
    try await store.close()
  }

  /// The one who lost its lease cannot do its work a second time.
  @Test func aLostLeaseStopsAllOfIt() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    let results = try await store.queue("results")
    try await queue.send("work")
    let first = try #require(try await queue.receive(wait: .zero).first)
    bench.simulatedClock.advance(by: .seconds(30))
    func work(_ lease: Lease) async throws {
      try await store.transaction { transaction in
        transaction.send(SendEntry(MessageContent(body: [1])), to: results.id)
        transaction.delete(lease.message.handle)
      }
    }
    #expect(await code { try await work(first) } == .leaseLost)
    let second = try #require(try await queue.receive(wait: .zero).first)
    #expect(second.message.fencingToken > first.message.fencingToken)
    #expect(await code { try await work(first) } == .leaseLost)
    try await work(second)
    #expect(await code { try await work(second) } == .leaseLost)
    #expect(try await results.describe().counts.total == 1)
    try await store.close()
  }

  @Test func whatOneStepCannotDoNoneDoes() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    let small = try await store.queue("small")
    try await small.change(
      .init {
        $0.maximumMessages = 2
        $0.maximumMessageBytes = 10
      })
    let entry = SendEntry(MessageContent(body: [1]))
    let lsn = store.lastLSN
    let failures: [(PenstockError.Code, (inout Transaction) -> Void)] = [
      (
        .messageTooLarge,
        { $0.send(SendEntry(MessageContent(body: [1, 2, 3] + Array(0..<8))), to: small.id) }
      ),
      (.queueFull, { transaction in for _ in 0..<3 { transaction.send(entry, to: small.id) } }),
      (.queueNotFound, { $0.send(entry, to: QueueID(99)) }),
      (
        .invalidArgument,
        { $0.send(SendEntry(MessageContent(body: []), delay: .seconds(-1)), to: small.id) }
      ),
      (
        .leaseLost,
        { $0.delete(LeaseHandle(queue: queue.id, slot: 0, message: 1, token: 1)) }
      ),
    ]
    for (expected, step) in failures {
      let found = await code {
        try await store.transaction { transaction in
          transaction.send(entry, to: queue.id)
          step(&transaction)
        }
      }
      #expect(found == expected)
    }
    #expect(store.lastLSN == lsn)
    #expect(try await store.transaction { _ in }.isEmpty)
    let two = try await store.transaction { transaction in
      for _ in 0..<2 { transaction.send(entry, to: small.id) }
    }
    #expect(two.count == 2)
    try await store.close()
  }

  @Test func repetitionsWithinOneAreFound() async throws {
    let store = try await Bench().open()
    let queue = try await store.queue("q", QueueSettings(isFIFO: true))
    let content = MessageContent(body: [1], groupID: "g", deduplicationID: "d")
    let receipts = try await store.transaction { transaction in
      for _ in 0..<2 { transaction.send(SendEntry(content), to: queue.id) }
    }
    #expect(receipts.map(\.isDuplicate) == [false, true])
    #expect(receipts[0].id == receipts[1].id)
    try await store.close()
  }
}
