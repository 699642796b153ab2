// SPDX-License-Identifier: Apache-2.0
import PenstockSystem

/// What connections do, again and again.
enum WireWork: String, CaseIterable, Sendable {
  /// Asks for a page that is always the same.
  case page
  case send
  /// Sends a batch of messages at a time.
  case batch
  /// Sends one message, receives one, deletes it.
  case cycle
  /// The same by batches.
  case cycles
  /// Receives from an empty queue.
  case empty
  /// Receives messages that are there.
  case receive
  /// The same, and deletes them.
  case drain
  /// Some send while others receive and delete.
  case mixed
  /// Many send to one queue, and one receives and deletes.
  case fanIn = "fan-in"
  /// As `mixed`, over the groups of a FIFO queue.
  case groups
  /// Sends large bodies.
  case large

  /// The same of the engine in process; of what commits nothing, a receive.
  var kind: Workload.Kind {
    switch self {
    case .send, .batch: .send
    case .cycle, .cycles: .cycle
    case .page, .empty, .receive: .receive
    case .drain: .drain
    case .mixed: .mixed
    case .fanIn: .fanIn
    case .groups: .groups
    case .large: .large
    }
  }

  /// What is done by those who have a schedule; where there are none, by all.
  var part: HTTPLoad.Part {
    switch self {
    case .page: .page
    case .empty: .empty
    case .receive: .receive
    case .drain: .take
    case .cycle, .cycles: .cycle
    case .send, .batch, .mixed, .fanIn, .groups, .large: .send
    }
  }

  /// Whether messages have to be there before.
  var isFilled: Bool { self == .receive || self == .drain }
  var isBatched: Bool {
    switch self {
    case .page, .send, .cycle, .empty, .large: false
    default: true
    }
  }
  /// Requests of one round where nothing has to be asked for twice.
  var requests: Int { kind == .cycle ? 3 : kind == .drain ? 2 : 1 }
}

/// One run of a workload over a queue of its own, with a count of all that was acknowledged.
///
/// What was sent must be there or be received, each once: identifiers of both sides are added up
/// and compared, bodies and the order within groups are compared message by message, and what the
/// server says is left is compared with what should be.
struct WireRun {
  private let work: WireWork
  private let load: Workload
  private let target: WireTarget
  private let queue: String
  private let check: WireCheck

  static func measure(
    _ work: WireWork, _ load: Workload, on target: WireTarget
  ) throws -> Workload.Outcome {
    if work == .page { return try WireRun(work, load, target, queue: "").measure() }
    let name = "penstock-bench-\(SystemRandom().next())" + (work == .groups ? ".fifo" : "")
    let queue = try target.makeQueue(name)
    let outcome: Workload.Outcome
    do {
      let run = WireRun(work, load, target, queue: queue)
      outcome = try run.measure()
      try run.compare()
    } catch let cause {
      do { try target.removeQueue(queue) } catch {
        throw BenchFailure("\(cause). Its queue \(queue) is still there: \(error)")
      }
      throw cause
    }
    try target.removeQueue(queue)
    return outcome
  }

  private init(_ work: WireWork, _ load: Workload, _ target: WireTarget, queue: String) {
    (self.work, self.load, self.target, self.queue) = (work, load, target, queue)
    check = WireCheck(load)
  }

  private func connections(_ part: HTTPLoad.Part, _ count: Int, batch: Int) -> [HTTPLoad] {
    (0..<count).map { lane in
      HTTPLoad(
        part, target, queue: queue, body: load.body, batch: batch,
        check: work == .page ? nil : check,
        groups: part == .send && work == .groups ? GroupNumbers(lane, load) : nil)
    }
  }

  private func measure() throws -> Workload.Outcome {
    if work.isFilled { try fill() }
    let takes = load.kind.hasConsumers
    check.isOver = !takes
    let plan = LoadPlan(
      seconds: load.seconds, warmUp: work.isFilled ? 0 : load.warmUp,
      rate: work.isFilled ? nil : load.rate)
    let result = try LoadLoop.run(
      connections(work.part, work.isFilled ? load.consumers : load.producers, batch: load.batch)
        + (takes ? connections(.take, load.consumers, batch: load.batch) : []),
      to: target.address, plan)
    try result.check()
    return .init(
      parts: load.parts(work.rawValue, result, takes ? check.delivered : result),
      left: takes || work.isFilled ? check.sent.count - check.received.count : 0)
  }

  /// Seconds to send what waits before.
  private static let patience = 60.0

  private func fill() throws {
    let batch = max(1, min(10, (256 << 10) / load.body))
    let rounds = (load.messages + batch - 1) / batch
    _ = try LoadLoop.run(
      connections(.send, min(load.consumers, rounds), batch: batch), to: target.address,
      LoadPlan(seconds: Self.patience, rounds: rounds))
    guard check.sent.count >= load.messages else {
      throw LoadError(
        "\(check.sent.count) messages were sent in \(Int(Self.patience)) s: try fewer --messages.")
    }
  }

  /// Receives and deletes what is left, where the workload does that, and compares both sides.
  private func compare() throws {
    check.isOver = true
    if load.kind.hasConsumers || work.isFilled, check.received.count < check.sent.count {
      _ = try LoadLoop.run(
        connections(.take, load.consumers, batch: 10), to: target.address,
        LoadPlan(seconds: 3600))
    }
    if load.kind.hasConsumers || work.isFilled || load.kind == .cycle {
      try check.sent.check(received: check.received)
    }
    // Servers may tell it a little late: their counts are approximate.
    var count = try target.count(in: queue)
    let end = RealClock().monotonicNanoseconds() + 2_000_000_000
    while count != check.sent.count - check.deleted, RealClock().monotonicNanoseconds() < end {
      count = try target.count(in: queue)
    }
    try check.sent.check(left: count, deleted: check.deleted)
  }
}
