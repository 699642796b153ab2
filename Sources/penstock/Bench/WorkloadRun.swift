// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockSystem
import Synchronization

/// One run of a workload over a store of its own, with a count of all that was acknowledged.
///
/// What was sent must be there or be received, each once: LSNs of both sides are added up and
/// compared, order within a group is compared message by message, and what should be left is
/// counted once more after the store was closed and opened again.
final class WorkloadRun: Sendable {
  let workload: Workload
  private let store: Store
  private let queues: [Queue]
  private let clock = RealClock()
  private let template: [UInt8]
  /// Messages, and the sum of their LSNs.
  private let sent = MessageTally()
  private let received = MessageTally()
  private let deleted = Atomic<Int>(0)
  /// Requests whose answer follows a commit.
  private let durableRequests = Atomic<Int>(0)
  private let order: Mutex<GroupOrder>

  /// When a request counts.
  private struct Window: Sendable {
    var start: UInt64
    var end: UInt64
    /// A lane that is behind its schedule stops here.
    var patience: UInt64
    var schedule: Schedule?
    var pacer: Pacer?
  }

  /// Runs the workload in a new directory, and checks what it did.
  ///
  /// - Parameter environment: of the store; tests plant bugs in it.
  static func measure(
    _ workload: Workload, in path: String, environment: StoreEnvironment = StoreEnvironment()
  ) async throws -> Workload.Outcome {
    var options = StoreOptions()
    options.durability = workload.durability
    let store = try await Store.open(at: path, options: options, environment: environment)
    let count = workload.kind == .fanInQueues ? workload.producers : 1
    let isFIFO = workload.kind == .groups
    var queues: [Queue] = []
    for number in 0..<count {
      let settings = QueueSettings {
        $0.isFIFO = isFIFO
        // Nothing comes back while it is measured.
        $0.visibilityTimeout = .seconds(43_200)
      }
      queues.append(try await store.queue("bench-\(number)\(isFIFO ? ".fifo" : "")", settings))
    }
    let run = WorkloadRun(workload, store, queues)
    let outcome = try await run.measure()
    try await run.check()
    try await store.close()
    let again = try await Store.open(at: path, options: options, environment: environment)
    try await run.checkCounts(in: again)
    try await again.close()
    return outcome
  }

  private init(_ workload: Workload, _ store: Store, _ queues: [Queue]) {
    (self.workload, self.store, self.queues) = (workload, store, queues)
    template = (0..<workload.body).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    order = Mutex(GroupOrder(groups: workload.groups))
  }

  // MARK: Measuring

  private func measure() async throws -> Workload.Outcome {
    let kind = workload.kind
    // A store that has no messages warms up: its first segment is made, its first commit written.
    if !kind.produces { try await fill(workload.messages) }
    let before = store.metrics()
    let (requestsBefore, began) = (count(durableRequests), clock.monotonicNanoseconds())
    let start = began + UInt64((kind.produces ? workload.warmUp : 0) * 1e9)
    let length = UInt64(workload.seconds * 1e9)
    var window = Window(start: start, end: start + length, patience: start + 2 * length)
    if let rate = workload.rate, kind.produces {
      let schedule = Schedule(start: began, rate: rate, lanes: workload.producers)
      (window.schedule, window.pacer) = (schedule, Pacer(schedule))
    }
    let pacing = try window.pacer?.run()
    let (produced, consumed) = try await load(window)
    window.pacer?.stop()
    pacing?.join()
    let after = store.metrics()
    let elapsed = Double(clock.monotonicNanoseconds() - began) / 1e9

    let (commits, syncs) = (after.commits - before.commits, after.syncs.count - before.syncs.count)
    let requests = count(durableRequests) - requestsBefore
    let consumers = kind.hasConsumers || !kind.produces ? workload.consumers : 0
    if workload.durability == .synced {
      try Self.check(
        syncs: Int(syncs), of: requests,
        atOnce: (kind.produces ? workload.producers : 0) + consumers)
    }
    let left = sent.count - received.count
    return .init(
      parts: workload.parts(workload.title, produced, consumed),
      recordsPerCommit: Double(after.records.sum - before.records.sum) / Double(max(commits, 1)),
      syncsPerSecond: Double(syncs) / elapsed, left: kind.hasConsumers || !kind.produces ? left : 0)
  }

  private func count(_ atomic: borrowing Atomic<Int>) -> Int { atomic.load(ordering: .relaxed) }

  private func load(
    _ window: Window
  ) async throws -> (produced: Measurement, consumed: Measurement) {
    try await withThrowingTaskGroup(of: (isProducer: Bool, part: Measurement).self) { tasks in
      if workload.kind.produces {
        for lane in 0..<workload.producers {
          tasks.addTask { (true, try await self.produce(lane, window)) }
        }
      }
      if workload.kind.hasConsumers || !workload.kind.produces {
        for lane in 0..<workload.consumers {
          tasks.addTask { (false, try await self.consume(lane, window)) }
        }
      }
      var (produced, consumed) = (Measurement(), Measurement())
      do {
        for try await (isProducer, part) in tasks {
          if isProducer { produced.add(part) } else { consumed.add(part) }
        }
      } catch {
        window.pacer?.stop()
        throw error
      }
      return (produced, consumed)
    }
  }

  private func produce(_ lane: Int, _ window: Window) async throws -> Measurement {
    let queue = queues[lane % queues.count]
    let constant = entries(from: 0)
    var groups = GroupNumbers(lane, workload)
    switch workload.kind {
    case .sendByCompletion:
      return try await CompletionLane(self, queue, constant, lane, window).run()
    case .cycle:
      return try await requests(lane, window) { _ in
        try await self.send(constant, to: queue)
        var left = constant.count
        while left > 0 {
          let leases = try await queue.receive(maximum: left, wait: .seconds(10))
          guard !leases.isEmpty else { throw BenchFailure("a message that was sent is not there") }
          try self.note(leases)
          try await self.delete(leases, from: queue)
          left -= leases.count
        }
        return constant.count
      }
    case .groups:
      return try await requests(lane, window) { began in
        let entries = self.entries(from: began) { groups.next() }
        return try await self.send(entries, to: queue)
      }
    case let kind where kind.isStamped:
      return try await requests(lane, window) { began in
        try await self.send(self.entries(from: began), to: queue)
      }
    default:
      return try await requests(lane, window) { _ in try await self.send(constant, to: queue) }
    }
  }

  /// Makes requests, one after the other or each when it is due, until the time is over.
  private func requests(
    _ lane: Int, _ window: Window, _ request: (UInt64) async throws -> Int
  ) async throws -> Measurement {
    var measurement = Measurement()
    var number = 0
    while let began = next(number, lane, window, &measurement) {
      if let pacer = window.pacer {
        await withCheckedContinuation { waiting in
          pacer.wait(number, lane: lane) { waiting.resume() }
        }
      }
      let count = try await request(began)
      let ended = clock.monotonicNanoseconds()
      if began >= window.start {
        measurement.record(count, from: began, to: ended, since: window.start)
      }
      number += 1
    }
    return measurement
  }

  /// When the next request begins, or counts as begun; nil when the time is over.
  private func next(
    _ number: Int, _ lane: Int, _ window: Window, _ measurement: inout Measurement
  ) -> UInt64? {
    if Task.isCancelled { return nil }
    let now = clock.monotonicNanoseconds()
    guard let schedule = window.schedule else {
      // At least one of each lane, however late its task comes to run.
      return now < window.end || number == 0 ? now : nil
    }
    var number = number
    var due = schedule.due(number, lane: lane)
    if due < window.end, now < window.patience { return due }
    while due < window.end {
      measurement.unserved += 1
      measurement.record(0, from: due, to: now, since: window.start)
      number += 1
      due = schedule.due(number, lane: lane)
    }
    return nil
  }

  /// Receives, and deletes unless only receives are measured, until the time is over or, where
  /// nobody sends, until nothing is left.
  private func consume(_ lane: Int, _ window: Window) async throws -> Measurement {
    var measurement = Measurement()
    let kind = workload.kind
    var place = lane
    while true {
      let began = clock.monotonicNanoseconds()
      guard began < window.end else { return measurement }
      let queue = queues[place % queues.count]
      place += 1
      let wait: Duration = kind.produces && queues.count == 1 ? .milliseconds(20) : .zero
      let leases = try await queue.receive(maximum: workload.batch, wait: wait)
      guard !leases.isEmpty else {
        if !kind.produces { return measurement }
        // Once round all queues for nothing: leave the processors to those who send.
        if queues.count > 1, place % queues.count == lane % queues.count {
          try await Task.sleep(for: .milliseconds(1))
        }
        continue
      }
      let came = clock.monotonicNanoseconds()
      try note(leases)
      if kind.isStamped, came >= window.start, came < window.end {
        for lease in leases {
          let stamp = Self.number(in: lease.body, at: 0)
          measurement.record(1, from: stamp, to: came, since: window.start)
        }
      }
      if kind != .receive { try await delete(leases, from: queue) }
      if !kind.isStamped {
        measurement.record(
          leases.count, from: began, to: clock.monotonicNanoseconds(), since: window.start)
      }
    }
  }

  // MARK: Requests

  /// Counts what a send came to.
  fileprivate func note(_ results: [Result<SendReceipt, PenstockError>]) throws -> Int {
    var sum: UInt64 = 0
    for result in results { sum &+= try result.get().lsn }
    sent.add(results.count, sum)
    durableRequests.add(1, ordering: .relaxed)
    return results.count
  }

  @discardableResult
  private func send(_ entries: [SendEntry], to queue: Queue) async throws -> Int {
    try note(try await queue.send(batch: entries))
  }

  private func delete(_ leases: [Lease], from queue: Queue) async throws {
    for result in try await queue.delete(leases.map(\.message.handle)) { try result.get() }
    deleted.add(leases.count, ordering: .relaxed)
    durableRequests.add(1, ordering: .relaxed)
  }

  /// Counts what was received, and compares it with what was sent.
  private func note(_ leases: [Lease]) throws {
    var sum: UInt64 = 0
    for lease in leases {
      sum &+= lease.message.sequenceNumber
      guard lease.body.count == template.count else {
        throw BenchFailure("a body of \(template.count) bytes came as \(lease.body.count)")
      }
      guard isIntact(lease.body) else {
        throw BenchFailure("the body of message \(lease.message.sequenceNumber) is another")
      }
    }
    received.add(leases.count, sum)
    if workload.kind == .groups { try checkOrder(leases) }
  }

  private func isIntact(_ body: [UInt8]) -> Bool {
    let start = workload.kind.isStamped ? Workload.stampSize : 0
    return body.withUnsafeBytes { body in
      template.withUnsafeBytes {
        guard let ours = body.baseAddress, let theirs = $0.baseAddress else { return true }
        return memcmp(ours + start, theirs + start, body.count - start) == 0
      }
    }
  }

  private func checkOrder(_ leases: [Lease]) throws {
    try order.withLock { order in
      for lease in leases {
        let group = lease.message.content.groupID.flatMap { Int($0.dropFirst()) }
        try order.check(Self.number(in: lease.body, at: 8), of: group)
      }
    }
  }

  /// A batch, stamped if the workload has that; `group` tells each message's group and number.
  private func entries(
    from began: UInt64, _ group: () -> (group: Int, number: UInt64)? = { nil }
  ) -> [SendEntry] {
    (0..<workload.batch).map { _ in
      guard workload.kind.isStamped else { return SendEntry(MessageContent(body: template)) }
      let place = group()
      var body = template
      for (offset, value) in [(0, began), (8, place?.number ?? 0)] {
        for byte in 0..<8 { body[offset + byte] = UInt8(truncatingIfNeeded: value >> (8 * byte)) }
      }
      return SendEntry(MessageContent(body: body, groupID: place.map { "g\($0.group)" }))
    }
  }

  private static func number(in body: [UInt8], at offset: Int) -> UInt64 {
    (0..<8).reduce(0) { $0 | UInt64(body[offset + $1]) << (8 * $1) }
  }

  private func fill(_ count: Int) async throws {
    let entry = SendEntry(MessageContent(body: template))
    let size = min(500, max(1, (4 << 20) / workload.body))
    try await withThrowingTaskGroup { tasks in
      for filler in 0..<4 {
        tasks.addTask {
          for start in stride(from: filler * size, to: count, by: 4 * size) {
            let batch = Array(repeating: entry, count: min(size, count - start))
            try await self.send(batch, to: self.queues[0])
          }
        }
      }
      try await tasks.waitForAll()
    }
  }

  // MARK: Checking

  /// A sync makes durable what was asked for before it: of each lane one request at most.
  static func check(syncs: Int, of requests: Int, atOnce lanes: Int) throws {
    guard syncs * lanes >= requests else {
      throw BenchFailure(
        "\(requests) requests, \(lanes) at a time, were acknowledged as synced with \(syncs) syncs")
    }
  }

  /// Receives and deletes what is left, where the workload does that, and compares both sides.
  private func check() async throws {
    let kind = workload.kind
    if kind.hasConsumers || kind == .drain || kind == .cycle {
      for queue in queues {
        while true {
          let leases = try await queue.receive(maximum: 500)
          guard !leases.isEmpty else { break }
          try note(leases)
          try await delete(leases, from: queue)
        }
      }
      try sent.check(received: received)
    }
    try await checkCounts(in: store)
  }

  /// Counts what a store holds of the queues.
  private func checkCounts(in store: Store) async throws {
    var total = 0
    for queue in queues {
      guard let queue = store.existingQueue(queue.name) else {
        throw BenchFailure("a queue is gone")
      }
      total += try await queue.describe().counts.total
    }
    try sent.check(left: total, deleted: count(deleted))
  }

  // MARK: By completion

  /// A lane that makes the next request from the completion of the one before.
  private final class CompletionLane: Sendable {
    private let run: WorkloadRun
    private let queue: Queue
    private let entries: [SendEntry]
    private let lane: Int
    private let window: Window
    private let progress = Mutex((measurement: Measurement(), number: 0))

    init(
      _ run: WorkloadRun, _ queue: Queue, _ entries: [SendEntry], _ lane: Int, _ window: Window
    ) {
      (self.run, self.queue, self.entries) = (run, queue, entries)
      (self.lane, self.window) = (lane, window)
    }

    func run() async throws -> Measurement {
      try await withCheckedThrowingContinuation { next($0) }
      return progress.withLock { $0.measurement }
    }

    private func next(_ whenDone: CheckedContinuation<Void, any Error>) {
      let (began, number) = progress.withLock { progress in
        let began = run.next(progress.number, lane, window, &progress.measurement)
        return (began, progress.number)
      }
      guard let began else { return whenDone.resume() }
      guard let pacer = window.pacer else { return send(began, whenDone) }
      pacer.wait(number, lane: lane) { self.send(began, whenDone) }
    }

    private func send(_ began: UInt64, _ whenDone: CheckedContinuation<Void, any Error>) {
      run.store.send(entries, to: queue.id) { result in
        let count: Int
        do { count = try self.run.note(result.get()) } catch {
          return whenDone.resume(throwing: error)
        }
        let ended = self.run.clock.monotonicNanoseconds()
        self.progress.withLock { progress in
          progress.number += 1
          guard began >= self.window.start else { return }
          progress.measurement.record(count, from: began, to: ended, since: self.window.start)
        }
        self.next(whenDone)
      }
    }
  }
}
