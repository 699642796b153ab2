// SPDX-License-Identifier: Apache-2.0
public import Penstock

/// Runs a handler of messages against what "at least once" means: the same message again, twice at
/// a time, after a crash, in another order. Over a real store in a `Simulation`, as a function of a
/// seed.
///
/// ```swift
/// let test = HandlerTest(["tea", "coffee"], world: Database.init) { database in
///   { delivery in try await book(delivery.text, key: delivery.id, in: database) }
/// } check: { database in
///   database.rows.count == 2 ? nil : "\(database.rows.count) rows"
/// }
/// let report = test.run()
/// #expect(report.hasPassed, "\(report)")
/// ```
///
/// In every trial all messages are sent, consumers in a process receive them, call the handler and
/// delete what it returned from; faults happen until their budget is used up, so that all messages
/// come to be deleted. Then the check is asked. Standard queues keep no order, not even within a
/// group, and so does the test.
///
/// Faults strike where the handler awaits, and after it returned: let the fakes of its databases
/// await where the real ones do. When the process ends, the handlers in it never go on; only a call
/// of an actor that was under way goes on in that actor, as a request does that has reached a
/// server. When the trial is over they are cancelled, to free what they hold; what they do then
/// counts for nothing.
public struct HandlerTest<World: Sendable>: Sendable {
  /// Works on one delivery. When it throws, the message comes back.
  public typealias Handler = @Sendable (Delivery) async throws -> Void

  let messages: [MessageContent]
  let world: @Sendable () -> World
  let consumer: @Sendable (World) async -> Handler
  let check: @Sendable (World) async throws -> String?

  /// What may happen. Each trial leaves some of it out, by seed.
  public var faults = HandlerFaults.all
  /// How long a lease lasts.
  public var visibilityTimeout = Duration.seconds(30)
  /// Whether the message is deleted when the handler returns. Otherwise the handler must do that,
  /// and the check tell whether all of the work was done.
  public var deletesOnReturn = true
  /// How often a message may be delivered in a trial; once more is a failure.
  public var deliveryLimit = 50

  /// A test that has not run yet.
  ///
  /// - Parameters:
  ///   - messages: what is sent, in this order; the bodies may be equal.
  ///   - world: makes what outlives the consumer's process, such as a database. Once per trial.
  ///   - consumer: what the process does when it starts: makes the handler. What it makes besides
  ///     is the process's memory and is lost with it.
  ///   - check: what is wrong with the world once all messages are handled; nil if nothing is.
  public init(
    _ messages: [MessageContent], world: @escaping @Sendable () -> World,
    consumer: @escaping @Sendable (World) async -> Handler,
    check: @escaping @Sendable (World) async throws -> String?
  ) {
    self.messages = messages
    self.world = world
    self.consumer = consumer
    self.check = check
  }

  /// The same with texts as bodies.
  public init(
    _ texts: [String], world: @escaping @Sendable () -> World,
    consumer: @escaping @Sendable (World) async -> Handler,
    check: @escaping @Sendable (World) async throws -> String?
  ) {
    let messages = texts.map { MessageContent(body: Array($0.utf8)) }
    self.init(messages, world: world, consumer: consumer, check: check)
  }

  /// Runs trials with the seeds from `seed` on, on the calling thread.
  public func run(trials: Int = 200, from seed: UInt64 = 1) -> HandlerReport {
    var report = HandlerReport()
    for number in 0..<UInt64(trials) { report.add(trial(seed: seed &+ number)) }
    return report
  }

  /// Runs one trial: the same for the same seed.
  public func trial(seed: UInt64) -> HandlerTrial { TrialRun(self, seed).run() }
}

/// Kinds of faults that a `HandlerTest` may make happen.
public struct HandlerFaults: OptionSet, Sendable, Hashable {
  public let rawValue: Int
  /// A set by its bits.
  public init(rawValue: Int) { self.rawValue = rawValue }

  /// The delete of a handled message is lost, or comes when the lease has ended and another
  /// consumer has the message.
  public static let duplicates = HandlerFaults(rawValue: 1)
  /// The handler stands still until its lease has ended and another consumer has the message.
  public static let leaseExpiry = HandlerFaults(rawValue: 2)
  /// The process is killed or power is lost, in the middle of a handler, or after its return and
  /// before the delete is known to be durable.
  public static let crashes = HandlerFaults(rawValue: 4)
  /// A checkpoint of the handler throws.
  public static let failures = HandlerFaults(rawValue: 8)
  /// Messages become visible in another order than they were sent in, and several consumers work
  /// at a time.
  public static let reordering = HandlerFaults(rawValue: 16)

  /// All of them.
  public static let all: HandlerFaults = [
    .duplicates, .leaseExpiry, .crashes, .failures, .reordering,
  ]

  var singles: [HandlerFaults] { (0..<5).map { HandlerFaults(rawValue: 1 << $0) }.filter(contains) }
}

/// One call of a handler.
public struct Delivery: Sendable {
  /// The message with all that belongs to it; to be deleted by the handler only if the test does
  /// not.
  public let lease: Lease
  /// Simulated time, to sleep on.
  public let clock: SimulatedClock
  let failing: @Sendable () throws -> Void

  /// The same for every delivery of a message: what a consumer knows a duplicate by.
  public var id: MessageID { lease.message.id }
  /// The body read as UTF-8.
  public var text: String { lease.text }
  /// From the message's sender.
  public var groupID: String? { lease.message.content.groupID }
  /// How often the message was received, this time included. It does not tell a duplicate: power
  /// loss may take it back.
  public var receiveCount: Int { lease.message.receiveCount }

  /// A place where the real handler would ask another system: others get their turn, and by seed
  /// it throws.
  public func checkpoint() async throws {
    await Task.yield()
    try failing()
  }
}

/// What a checkpoint throws.
public struct InjectedFailure: Error, CustomStringConvertible {
  /// As a report shows it.
  public var description: String { "injected failure" }
}

/// What happened in one trial.
public struct HandlerTrial: Sendable, CustomStringConvertible {
  /// What the trial follows from.
  public let seed: UInt64
  /// Calls of the handler.
  public internal(set) var deliveries = 0
  /// How often what happened, in words.
  public internal(set) var faults: [String: Int] = [:]
  /// What happened, in order, with the simulated time.
  public internal(set) var events: [String] = []
  /// What is wrong; nil when nothing is.
  public internal(set) var problem: String?
  /// Equal for equal trials.
  public internal(set) var trace: UInt64 = 0

  init(seed: UInt64) { self.seed = seed }

  /// The problem, the events, and how to repeat them.
  public var description: String {
    let head = "seed \(seed): \(problem ?? "nothing is wrong")"
    return ([head] + events.map { "  \($0)" } + ["  repeat it with trial(seed: \(seed))"])
      .joined(separator: "\n")
  }
}

/// What happened in the trials of a `HandlerTest`.
public struct HandlerReport: Sendable, CustomStringConvertible {
  /// Of how many failed trials everything is kept.
  static let kept = 5

  /// How many trials were run.
  public private(set) var trials = 0
  /// Calls of the handler.
  public private(set) var deliveries = 0
  /// How often each fault happened, in words.
  public private(set) var faults: [String: Int] = [:]
  /// How many trials ended with a problem.
  public private(set) var failedTrials = 0
  /// The first of these.
  public private(set) var failures: [HandlerTrial] = []

  /// Whether no trial ended with a problem.
  public var hasPassed: Bool { failedTrials == 0 }

  mutating func add(_ trial: HandlerTrial) {
    trials += 1
    deliveries += trial.deliveries
    faults.merge(trial.faults, uniquingKeysWith: +)
    guard trial.problem != nil else { return }
    failedTrials += 1
    if failures.count < Self.kept { failures.append(trial) }
  }

  /// A table of what happened, then the failures.
  public var description: String {
    let head = "\(trials) trials, \(deliveries) deliveries, \(failedTrials) failed"
    let table = faults.sorted { $0.key < $1.key }.map { "  \($0.value) times: \($0.key)" }
    return ([head] + table + failures.map(\.description)).joined(separator: "\n")
  }
}
