// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockCore
import PenstockTesting
import Testing

/// Random operations on the state beside the oracle, with random steps of time.
///
/// After each operation both must agree on every count, and the state's invariants hold. Now and
/// then the state is thrown away and built anew from its records, as at a restart: it must have the
/// hash of the one that lived (I5) and goes on in its place. Each seed leaves some operations out.
private struct Run {
  enum Operation: CaseIterable {
    case send, delayedSend, receive, delete, changeVisibility, passTime, purge, createQueue
    case deleteQueue, changeQueue, restart
  }

  var machine = Machine(at: 1_700_000_000_000)
  var oracle = Oracle(at: 1_700_000_000_000)
  let random: StableRandom
  let operations: [Operation]
  var queues: [QueueID] = []
  /// Handles of messages that live, that are gone, and of queues that are gone.
  var handles: [LeaseHandle] = []

  init(seed: UInt64) {
    random = StableRandom(seed: seed)
    var weighted: [Operation] = []
    for operation in Operation.allCases {
      let weight =
        switch operation {
        case .send: 12
        case .receive: 10
        case .delete, .passTime: 8
        case .delayedSend, .changeVisibility: 5
        case .restart, .changeQueue, .createQueue: 2
        case .purge, .deleteQueue: 1
        }
      let isIn = operation == .send || operation == .restart || random.chance(4, of: 5)
      if isIn { weighted += Array(repeating: operation, count: weight) }
    }
    operations = weighted
  }

  mutating func run(steps: Int) throws {
    try createQueue()
    for _ in 0..<steps {
      try perform(operations[random.below(operations.count)])
      try compare()
    }
    try restart()
  }

  private mutating func perform(_ operation: Operation) throws {
    if queues.isEmpty { return try createQueue() }
    let queue = queues[random.below(queues.count)]
    switch operation {
    case .send: try send(queue, delay: nil)
    case .delayedSend: try send(queue, delay: [0, 1, 700, 5000, 90_000][random.below(5)])
    case .receive: try receive(queue)
    case .delete: try delete()
    case .changeVisibility: try changeVisibility()
    case .passTime: try pass()
    case .purge:
      try machine.purge(queue)
      oracle.purgeQueue(queue)
    case .createQueue: if queues.count < 4 { try createQueue() }
    case .deleteQueue:
      try machine.remove(queue)
      oracle.deleteQueue(queue)
      queues.removeAll { $0 == queue }
    case .changeQueue:
      try machine.change(queue, QueueSettingsChange(settings()))
      let now = try #require(machine.state.describe(queue)).settings
      oracle.changeQueue(queue, now)
    case .restart: try restart()
    }
  }

  private func settings() -> QueueSettings {
    QueueSettings(
      visibilityTimeout: .seconds([0, 1, 30][random.below(3)]),
      delay: .milliseconds([0, 0, 0, 1500][random.below(4)]),
      retention: .seconds([10, 60, 345_600][random.below(3)]))
  }

  private mutating func createQueue() throws {
    let settings = settings()
    let name = "q\(random.below(6))"
    if machine.state.queue(named: name) != nil { return }
    let id = try machine.create(name, QueueSettingsChange(settings))
    oracle.createQueue(id, settings)
    queues.append(id)
  }

  private mutating func send(_ queue: QueueID, delay: Int64?) throws {
    let number = try machine.send(queue, delay: delay)
    oracle.send(number, to: queue, delay: delay.map { .milliseconds($0) })
  }

  private mutating func receive(_ queue: QueueID) throws {
    let limit = 1 + random.below(5)
    let timeout = [0, 1, 999, 4000, 40_000, 200_000][random.below(6)]
    let candidates = machine.state.candidates(queue, limit: limit)
    let received = try machine.receive(queue, limit, timeout: Int64(timeout))
    let expected = oracle.receive(from: queue, limit: limit, timeout: .milliseconds(timeout))
    #expect(received.map(\.message) == expected.map(\.number))
    for (candidate, message) in zip(candidates, expected) {
      let lease = machine.state.lease(candidate)
      #expect(Int(lease.receiveCount) == message.receiveCount)
      #expect(lease.firstReceivedAt.milliseconds == message.firstReceivedAt)
      #expect(lease.deadline.milliseconds == message.hiddenUntil)
    }
    handles += received
    if handles.count > 60 { handles.removeFirst(handles.count - 60) }
  }

  private mutating func delete() throws {
    guard !handles.isEmpty else { return }
    let handle = handles[random.below(handles.count)]
    guard queues.contains(handle.queue) else {
      #expect(throws: Refusal.queueNotFound) { try machine.delete(handle) }
      return
    }
    #expect(try machine.delete(handle) == oracle.delete(handle.message, from: handle.queue))
  }

  private mutating func changeVisibility() throws {
    guard !handles.isEmpty else { return }
    let handle = handles[random.below(handles.count)]
    guard queues.contains(handle.queue) else { return }
    let timeout = [0, 0, 1, 2500, 30_000, 300_000][random.below(6)]
    let limit = random.chance(1, of: 2) ? 60_000 : nil
    let expected = oracle.changeVisibility(
      handle.message, of: handle.queue, timeout: .milliseconds(timeout),
      totalLimit: limit.map { .milliseconds($0) })
    do {
      try machine.hide(handle, for: Int64(timeout), limit: limit.map(Int64.init))
      #expect(expected == .done)
    } catch let refusal as Refusal {
      let all: [Oracle.Change: Refusal] = [
        .notFound: .messageNotFound, .limitExceeded: .leaseLimitExceeded,
      ]
      #expect(all[expected] == refusal)
    }
  }

  private mutating func pass() throws {
    let step = Int64([1, 300, 1000, 5000, 31_000, 70_000][random.below(6)])
    try machine.pass(milliseconds: step)
    oracle.advance(to: machine.now)
  }

  private mutating func restart() throws {
    let fresh = try machine.replayed()
    #expect(fresh.stateHash() == machine.state.stateHash())
    #expect(fresh.brokenInvariant() == nil)
    #expect(fresh.nextTimer == machine.state.nextTimer)
    machine.state = fresh
  }

  private func compare() throws {
    for queue in queues {
      let counts = try #require(machine.state.counts(queue))
      let expected = try #require(oracle.counts(queue))
      guard counts == expected else {
        throw BrokenInvariant(description: "\(queue): \(counts), the oracle has \(expected)")
      }
    }
  }
}

@Suite struct StateBesideTheOracle {
  @Test(arguments: UInt64(0)..<80) func agreesAfterEveryOperation(seed: UInt64) throws {
    var run = Run(seed: seed)
    try run.run(steps: 250)
  }

  /// The same records with other looks at the time in between give the same state.
  @Test(arguments: UInt64(100)..<120) func doesNotDependOnWhenTimeWasLookedAt(seed: UInt64) throws {
    var run = Run(seed: seed)
    try run.run(steps: 150)
    let random = StableRandom(seed: seed)
    var other = State()
    for logged in run.machine.log {
      let gap = logged.entry.time.milliseconds - other.time.milliseconds
      for _ in 0..<random.below(4) {
        let part = Int64(random.below(Int(min(gap, 1_000_000)) + 1))
        let time = min(logged.entry.time.milliseconds, other.time.milliseconds + part)
        other.advance(to: Timestamp(milliseconds: time))
      }
      try other.apply(logged.entry, lsn: logged.lsn, position: logged.position)
    }
    other.advance(to: run.machine.state.time)
    #expect(other.stateHash() == run.machine.state.stateHash())
  }
}
