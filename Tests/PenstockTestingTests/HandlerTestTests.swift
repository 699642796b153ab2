// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Synchronization
import Testing

/// Handlers that are right pass, and each mistake is found by the faults that it is made for, and
/// by no others.
@Suite struct HandlerTestTests {
  /// A database that outlives consumers: rows and the keys of what was booked.
  private final class Database: Sendable {
    private struct Tables {
      var rows: [String] = []
      var keys: Set<MessageID> = []
    }
    private let tables = Mutex(Tables())

    var rows: [String] { tables.withLock { $0.rows } }

    func insert(_ row: String) { tables.withLock { $0.rows.append(row) } }
    func add(_ key: MessageID) { tables.withLock { _ = $0.keys.insert(key) } }
    func has(_ key: MessageID) -> Bool { tables.withLock { $0.keys.contains(key) } }

    /// Row and key in one transaction; nothing when the key is there.
    func insert(_ row: String, once key: MessageID) {
      tables.withLock { tables in
        if tables.keys.insert(key).inserted { tables.rows.append(row) }
      }
    }
  }

  private final class Memory: Sendable {
    let keys = Mutex<Set<MessageID>>([])
  }

  private static let goods = ["tea", "coffee", "salt", "cloth"]

  /// Every message booked once.
  private static func test(
    _ faults: HandlerFaults = .all,
    _ consumer: @escaping @Sendable (Database) async -> HandlerTest<Database>.Handler
  ) -> HandlerTest<Database> {
    var test = HandlerTest(goods, world: { Database() }, consumer: consumer) { database in
      let rows = database.rows.sorted()
      return rows == goods.sorted() ? nil : "the books show \(rows)"
    }
    test.faults = faults
    return test
  }

  private static func idempotent(_ database: Database) -> HandlerTest<Database>.Handler {
    { delivery in
      try await delivery.checkpoint()
      database.insert(delivery.text, once: delivery.id)
      try await delivery.checkpoint()
    }
  }

  @Test func anIdempotentHandlerPasses() {
    let report = Self.test { Self.idempotent($0) }.run(trials: 150)
    #expect(report.hasPassed, "\(report)")
    #expect(report.trials == 150)
    #expect(report.deliveries > 750)
    // Everything that the kit knows did happen.
    #expect(
      Set(report.faults.keys) == [
        "delete lost", "lease ended before the delete", "lease ended in mid-work",
        "kill in mid-work", "kill before the delete was durable", "power loss in mid-work",
        "power loss before the delete was durable", "failure in mid-work", "message out of order",
      ])
    #expect(report.faults.values.allSatisfy { $0 > 5 }, "\(report)")
  }

  @Test func aTrialIsAFunctionOfItsSeed() {
    let test = Self.test { Self.idempotent($0) }
    var traces: Set<UInt64> = []
    for seed in 1...30 as ClosedRange<UInt64> {
      let first = test.trial(seed: seed)
      let second = test.trial(seed: seed)
      #expect(first.trace == second.trace)
      #expect(first.events == second.events)
      traces.insert(first.trace)
    }
    #expect(traces.count == 30)
  }

  @Test(arguments: [HandlerFaults.duplicates, .leaseExpiry, .crashes, .failures])
  func aHandlerThatIsNotIdempotentIsFoundByEachOf(_ faults: HandlerFaults) throws {
    let test = Self.test(faults) { database in
      { delivery in
        try await delivery.checkpoint()
        database.insert(delivery.text)
        try await delivery.checkpoint()
      }
    }
    let report = test.run(trials: 40)
    #expect(report.failedTrials > 5, "\(report)")
    let failure = try #require(report.failures.first)
    #expect(failure.problem?.hasPrefix("the books show") == true)
    #expect(failure.events.contains { $0.contains("delivery 2") }, "\(failure)")
    #expect(failure.description.hasSuffix("repeat it with trial(seed: \(failure.seed))"))
    let again = test.trial(seed: failure.seed)
    #expect(again.events == failure.events)
    #expect(again.problem == failure.problem)
  }

  @Test func eachLostDeleteBringsItsMessageOnceMore() {
    let test = Self.test(.duplicates) { Self.idempotent($0) }
    var count = 0
    for seed in 1...80 as ClosedRange<UInt64> {
      let trial = test.trial(seed: seed)
      guard let lost = trial.faults["delete lost"], trial.faults.count == 1 else { continue }
      #expect(trial.deliveries == Self.goods.count + lost, "\(trial)")
      count += 1
    }
    #expect(count > 3)
  }

  @Test(arguments: [HandlerFaults(), .reordering])
  func aHandlerThatIsNotIdempotentPassesWithout(_ faults: HandlerFaults) {
    let report = Self.test(faults) { database in
      { delivery in
        try await delivery.checkpoint()
        database.insert(delivery.text)
      }
    }.run(trials: 40)
    #expect(report.hasPassed, "\(report)")
    #expect(report.deliveries == 40 * Self.goods.count)
  }

  /// Asks whether the message is known, awaits, and books it.
  private static func checkThenAct(_ database: Database) -> HandlerTest<Database>.Handler {
    { delivery in
      if database.has(delivery.id) { return }
      await Task.yield()
      database.insert(delivery.text)
      database.add(delivery.id)
    }
  }

  @Test func aCheckThatIsOldWhenActedOnIsFoundByLeaseExpiry() {
    let report = Self.test(.leaseExpiry) { Self.checkThenAct($0) }.run(trials: 40)
    #expect(report.failedTrials > 3, "\(report)")
    for faults in [.duplicates, .crashes, HandlerFaults.all.subtracting(.leaseExpiry)] {
      let report = Self.test(faults) { Self.checkThenAct($0) }.run(trials: 40)
      #expect(report.hasPassed, "\(report)")
    }
  }

  /// Remembers in the process what it has booked.
  private static func forgetful(_ database: Database) -> HandlerTest<Database>.Handler {
    let memory = Memory()
    return { delivery in
      guard memory.keys.withLock({ $0.insert(delivery.id).inserted }) else { return }
      database.insert(delivery.text)
      await Task.yield()
    }
  }

  @Test func aMemoryThatDiesWithTheProcessIsFoundByCrashes() {
    let report = Self.test(.crashes) { Self.forgetful($0) }.run(trials: 40)
    #expect(report.failedTrials > 3, "\(report)")
    let others: HandlerFaults = [.duplicates, .leaseExpiry, .failures, .reordering]
    let passed = Self.test(others) { Self.forgetful($0) }.run(trials: 40)
    #expect(passed.hasPassed, "\(passed)")
  }

  @Test func aHandlerThatMarksBeforeItWorksIsFoundByCrashesAndFailures() {
    for faults in [HandlerFaults.crashes, .failures] {
      let report = Self.test(faults) { database in
        { delivery in
          if database.has(delivery.id) { return }
          database.add(delivery.id)
          try await delivery.checkpoint()
          database.insert(delivery.text)
        }
      }.run(trials: 40)
      #expect(report.failedTrials > 3, "\(report)")
    }
  }

  /// Messages of a document, of which the last must win.
  @Test func aHandlerThatReliesOnOrderIsFoundByReordering() {
    func test(_ faults: HandlerFaults) -> HandlerTest<Database> {
      var test = HandlerTest(["1", "2", "3"], world: { Database() }) { database in
        { delivery in database.insert(delivery.text) }
      } check: { database in
        database.rows.last == "3" ? nil : "the document has version \(database.rows.last ?? "?")"
      }
      test.faults = faults
      return test
    }
    #expect(test(.reordering).run(trials: 40).failedTrials > 10)
    #expect(test([]).run(trials: 40).hasPassed)
  }

  @Test func groupsArriveInManyOrders() {
    let messages = [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")].map {
      MessageContent(body: Array($0.1.utf8), groupID: $0.0)
    }
    let orders = Database()
    var test = HandlerTest(messages, world: { Database() }) { database in
      { delivery in database.insert("\(delivery.groupID ?? "?")\(delivery.text)") }
    } check: { database in
      orders.insert(database.rows.joined(separator: " "))
      return database.rows.sorted() == ["a1", "a3", "b2", "c4"] ? nil : "\(database.rows)"
    }
    test.faults = .reordering
    let report = test.run(trials: 40)
    #expect(report.hasPassed, "\(report)")
    #expect(Set(orders.rows).count > 8, "\(orders.rows)")
  }

  @Test func aHandlerThatDeletesBeforeItWorksLosesMessagesAtACrash() {
    func test(_ faults: HandlerFaults) -> HandlerTest<Database> {
      var test = Self.test(faults) { database in
        { delivery in
          try await delivery.lease.delete()
          try await delivery.checkpoint()
          database.insert(delivery.text, once: delivery.id)
        }
      }
      test.deletesOnReturn = false
      return test
    }
    #expect(test(.crashes).run(trials: 40).failedTrials > 3)
    #expect(test([.duplicates, .reordering]).run(trials: 40).hasPassed)
  }

  @Test func aHandlerThatNeverDeletesIsFoundWithoutFaults() {
    var test = Self.test([]) { Self.idempotent($0) }
    test.deletesOnReturn = false
    test.deliveryLimit = 10
    let report = test.run(trials: 3)
    #expect(report.failedTrials == 3)
    #expect(report.failures[0].problem == "message 1 was delivered 11 times and is still there")
  }

  @Test func aHandlerThatAlwaysThrowsIsFound() {
    struct Refused: Error {}
    let report = Self.test([]) { _ in { _ in throw Refused() } }.run(trials: 3)
    #expect(report.failedTrials == 3)
    #expect(report.failures[0].problem?.hasSuffix("times and is still there") == true)
  }

  @Test func aHandlerThatNeverEndsIsADeadlock() {
    let report = Self.test([]) { _ in
      { _ in for await _ in AsyncStream<Int>(unfolding: { try? await hang() }) {} }
    }.run(trials: 2)
    #expect(report.failedTrials == 2)
    #expect(report.failures[0].problem?.contains("deadlock") == true, "\(report)")
  }

  @Test func aCheckThatThrowsIsAProblem() {
    struct Wrong: Error {}
    let test = HandlerTest(["tea"], world: {}) { _ in
      { _ in }
    } check: { _ in
      throw Wrong()
    }
    #expect(test.trial(seed: 1).problem == "the check threw: Wrong()")
  }

  /// An actor as a database: calls that were under way at a crash end there, and none after.
  private actor Ledger {
    private(set) var rows: [String] = []
    private var keys: Set<MessageID> = []

    func insert(_ row: String, once key: MessageID, _ clock: SimulatedClock) async throws {
      try await clock.sleep(for: .milliseconds(5))
      if keys.insert(key).inserted { rows.append(row) }
      await Task.yield()
    }
  }

  @Test func actorsWithLatencyServeAsDatabases() {
    let goods = Self.goods
    let test = HandlerTest(goods, world: { Ledger() }) { ledger in
      { delivery in
        async let one: Void = ledger.insert(delivery.text, once: delivery.id, delivery.clock)
        try await one
        try await delivery.clock.sleep(for: .seconds(2))
      }
    } check: { ledger in
      let rows = await ledger.rows
      return rows.sorted() == goods.sorted() ? nil : "\(rows)"
    }
    let report = test.run(trials: 50)
    #expect(report.hasPassed, "\(report)")
  }

  /// The first handler of the trial marks, awaits, and marks again; a dead one must not.
  @Test func handlersOfADeadProcessNeverGoOn() {
    let test = HandlerTest(["tea"], world: { Database() }) { database in
      // A start of the process after another is what a crash is seen by.
      database.insert("start")
      let starts = database.rows.count { $0 == "start" }
      return { _ in
        for _ in 0..<20 {
          await Task.yield()
          let now = database.rows.count { $0 == "start" }
          if now != starts { database.insert("ghost") }
        }
      }
    } check: {
      $0.rows.contains("ghost") ? "a dead handler went on" : nil
    }
    let report = test.run(trials: 50)
    #expect(report.hasPassed, "\(report)")
    #expect(report.faults["kill in mid-work", default: 0] > 10, "\(report)")
  }
}

/// Waits for ever, or until it is cancelled.
private func hang() async throws -> Int {
  let stream = AsyncStream<Int> { _ in }
  for await number in stream { return number }
  throw CancellationError()
}
