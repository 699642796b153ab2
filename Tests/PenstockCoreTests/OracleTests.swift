// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockCore
import PenstockTesting
import Testing

/// Random operations on the state beside the oracle, with random steps of time.
///
/// After each operation both must agree on every count, and the state's invariants hold. Now and
/// then the state is thrown away and built anew from its records, as at a restart: it must have the
/// hash of the one that lived (I5) and goes on in its place; or it is replaced by what its bytes
/// give, as by a checkpoint. Each seed leaves some operations out. Queues 0, 1 and 4 are FIFO; 4
/// and 5 take the dead letters of the others.
private struct Run {
  enum Operation: CaseIterable {
    case send, delayedSend, receive, delete, changeVisibility, passTime, purge, createQueue
    case deleteQueue, changeQueue, restart, checkpoint, reject, together
  }

  var machine = Machine(at: 1_700_000_000_000)
  var oracle = Oracle(at: 1_700_000_000_000)
  let random: StableRandom
  let operations: [Operation]
  var queues: [QueueID] = []
  /// Handles of messages that live, that are gone, and of queues that are gone.
  var handles: [LeaseHandle] = []
  /// Numbers in the oracle by LSN, of messages that were moved.
  var numbers: [UInt64: UInt64] = [:]
  private var hasReadCheckpoint = false

  init(seed: UInt64) {
    random = StableRandom(seed: seed)
    var weighted: [Operation] = []
    for operation in Operation.allCases {
      let weight =
        switch operation {
        case .send: 12
        case .receive: 10
        case .delete, .passTime: 8
        case .delayedSend, .changeVisibility, .together: 5
        case .restart, .changeQueue, .createQueue, .checkpoint, .reject: 2
        case .purge, .deleteQueue: 1
        }
      let isIn = operation == .send || operation == .restart || random.chance(4, of: 5)
      if isIn { weighted += Array(repeating: operation, count: weight) }
    }
    operations = weighted
  }

  mutating func run(steps: Int) throws {
    for _ in 0..<4 { try createQueue() }
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
      let present = try #require(machine.state.describe(queue))
      do {
        try machine.change(queue, QueueSettingsChange(settings(of: present.name)))
      } catch Refusal.deadLetterQueueMissing { return }
      let now = try #require(machine.state.describe(queue)).settings
      oracle.changeQueue(queue, now)
    case .restart: try restart()
    case .checkpoint:
      let read = try decodedState(encoded(machine.state))
      #expect(read.stateHash() == machine.state.stateHash())
      machine.state = read
      hasReadCheckpoint = true
      try machine.check()
    case .reject: try together([.reject])
    case .together:
      let kinds: [Part] = [.send, .send, .delete, .hide, .reject]
      try together((0..<1 + random.below(4)).map { _ in kinds[random.below(5)] })
    }
  }

  private func settings(of name: String) -> QueueSettings {
    let number = Int(name.dropFirst()) ?? 0
    return QueueSettings(
      visibilityTimeout: .seconds([0, 1, 30][random.below(3)]),
      delay: .milliseconds([0, 0, 0, 1500][random.below(4)]),
      retention: .seconds([10, 60, 345_600][random.below(3)])
    ) {
      $0.isFIFO = [0, 1, 4].contains(number)
      $0.deduplicatesByGroup = random.chance(1, of: 4)
      $0.deduplicationWindow = .seconds([3, 300][random.below(2)])
      if number < 4, random.chance(3, of: 4) {
        $0.deadLetterQueue = $0.isFIFO ? "q4" : "q5"
        $0.maximumReceives = 1 + random.below(3)
      }
      $0.maximumMessages = random.chance(1, of: 6) ? 6 : 0
      $0.maximumLeased = random.chance(1, of: 6) ? 2 : 0
      $0.priorityStep = .seconds([1, 60][random.below(2)])
      $0.isFair = random.chance(1, of: 2)
    }
  }

  private mutating func createQueue() throws {
    let name = "q\(random.below(6))"
    if machine.state.queue(named: name) != nil { return }
    let settings = settings(of: name)
    let id: QueueID
    do {
      id = try machine.create(name, QueueSettingsChange(settings))
    } catch Refusal.deadLetterQueueMissing { return }
    oracle.createQueue(id, settings, named: name)
    queues.append(id)
  }

  private func number(_ lsn: UInt64) -> UInt64 { numbers[lsn] ?? lsn }

  private mutating func apply(_ entry: Entry) throws -> UInt64 {
    let lsn = try machine.apply(entry)
    if case .transferred(let moved) = entry.record { numbers[lsn] = number(moved.message) }
    return lsn
  }

  // MARK: Sending

  private struct Draft {
    var queue: QueueID
    var delay: Int64?
    /// 0 for none, except in a FIFO queue.
    var group: Int
    var id: Int?
    var priority: Int

    func decide(_ state: borrowing State, ahead: Int?) throws(Refusal) -> State.Send {
      let settings = state.settings(queue)
      let scope = settings?.deduplicatesByGroup ?? false ? (group + 1) * 1000 : 0
      return try state.decideSend(
        queue, messageID: MessageID(randomHigh: 1, randomLow: 2), size: 1, delay: delay,
        group: group == 0 && settings?.isFIFO == false
          ? nil : TextHash(high: UInt64(group), low: UInt64(group % 2)),
        deduplication: id.map { TextHash(high: UInt64(scope + $0), low: UInt64($0 % 3)) },
        priority: UInt8(priority), ahead: ahead)
    }

    func send(_ number: UInt64, _ oracle: inout Oracle) -> UInt64? {
      let isFIFO = oracle.settings(queue)?.isFIFO ?? false
      return oracle.send(
        number, to: queue, delay: delay.map { .milliseconds($0) },
        group: group == 0 && !isFIFO ? "" : "\(group)",
        deduplication: isFIFO ? id.map(String.init) : nil, priority: priority)
    }
  }

  private func draft(_ queue: QueueID, delay: Int64?) -> Draft {
    let isFIFO = machine.state.settings(queue)?.isFIFO ?? false
    return Draft(
      queue: queue, delay: delay, group: random.below(4),
      id: random.chance(1, of: 2) ? random.below(6) : nil,
      priority: !isFIFO && random.chance(1, of: 5) ? 1 + random.below(3) : 0)
  }

  private mutating func send(_ queue: QueueID, delay: Int64?) throws {
    let draft = draft(queue, delay: delay)
    do {
      switch try draft.decide(machine.state, ahead: 0) {
      case .record(let entry):
        let lsn = try apply(entry)
        #expect(draft.send(lsn, &oracle) == lsn)
      case .duplicate(_, let original): #expect(draft.send(.max, &oracle) == original)
      }
    } catch Refusal.queueFull { #expect(draft.send(.max, &oracle) == nil) }
  }

  // MARK: Receiving

  private mutating func receive(_ queue: QueueID) throws {
    let limit = min(1 + random.below(5), machine.state.leaseAllowance(queue))
    let timeout = [0, 1, 999, 4000, 40_000, 200_000][random.below(6)]
    var moved: [UInt64] = []
    while let target = machine.state.deadLetterQueue(of: queue) {
      let dead = machine.state.candidates(queue, limit: limit)
        .filter { machine.state.isExhausted(queue, $0) }
      if dead.isEmpty { break }
      for message in dead {
        moved.append(number(message.message))
        _ = try apply(
          machine.state.decideTransfer(queue, message, to: target, .receivedTooOften))
      }
    }
    try machine.expire()
    let candidates = machine.state.candidates(queue, limit: limit)
    let received = try machine.receive(queue, limit, timeout: Int64(timeout))
    let taken = received.map { (number: number($0.message), lease: $0.token) }
    if oracle.messages(queue).allSatisfy(\.group.isEmpty) {
      var plain = oracle
      let expected = plain.receive(from: queue, limit: limit, timeout: .milliseconds(timeout))
      #expect(taken.map(\.number) == expected.map(\.number))
    }
    let done = oracle.follow(
      taken: taken, moved: moved, from: queue, timeout: .milliseconds(timeout))
    let followed = try #require(done, "took \(taken), moved \(moved)")
    #expect(
      taken.count == limit
        || oracle.next(in: queue, after: taken.map(\.number) + moved).isEmpty)
    for (candidate, message) in zip(candidates, followed) {
      let lease = machine.state.lease(candidate)
      #expect(Int(lease.receiveCount) == message.receiveCount)
      #expect(lease.firstReceivedAt.milliseconds == message.firstReceivedAt)
      #expect(lease.deadline.milliseconds == message.hiddenUntil)
      #expect(machine.state.origin(candidate.slot)?.movedAt.milliseconds == message.movedAt)
    }
    handles += received
    if handles.count > 60 { handles.removeFirst(handles.count - 60) }
  }

  // MARK: Holding

  private mutating func delete() throws {
    guard !handles.isEmpty else { return }
    let handle = handles[random.below(handles.count)]
    guard queues.contains(handle.queue) else {
      #expect(throws: Refusal.queueNotFound) { try machine.delete(handle) }
      return
    }
    let expected = oracle.delete(number(handle.message), from: handle.queue, lease: handle.token)
    do {
      // A handle of before a move names nothing.
      #expect(try machine.delete(handle) == (expected == .done))
    } catch Refusal.leaseLost { #expect(expected == .leaseLost) }
  }

  private static let refusals: [Oracle.Change: Refusal] = [
    .notFound: .messageNotFound, .limitExceeded: .leaseLimitExceeded, .leaseLost: .leaseLost,
  ]

  private mutating func changeVisibility() throws {
    guard !handles.isEmpty else { return }
    let handle = handles[random.below(handles.count)]
    guard queues.contains(handle.queue) else { return }
    let timeout = [0, 0, 1, 2500, 30_000, 300_000][random.below(6)]
    let limit = random.chance(1, of: 2) ? 60_000 : nil
    let expected = oracle.changeVisibility(
      number(handle.message), of: handle.queue, timeout: .milliseconds(timeout),
      totalLimit: limit.map { .milliseconds($0) }, lease: handle.token)
    do {
      try machine.hide(handle, for: Int64(timeout), limit: limit.map(Int64.init))
      #expect(expected == .done)
    } catch let refusal as Refusal {
      #expect(Self.refusals[expected] == refusal)
    }
  }

  // MARK: Together

  private enum Part { case send, delete, hide, reject }
  private enum Step {
    case send(Draft)
    case delete(LeaseHandle)
    case hide(LeaseHandle, Int64)
    case reject(LeaseHandle)
  }

  /// What a transaction does: all steps are asked before one is done.
  private mutating func together(_ parts: [Part]) throws {
    var (steps, left): ([Step], [LeaseHandle]) = ([], handles.filter { queues.contains($0.queue) })
    for part in parts {
      if part == .send {
        let delay: Int64? = random.chance(1, of: 4) ? 700 : nil
        steps.append(.send(draft(queues[random.below(queues.count)], delay: delay)))
        continue
      }
      guard !left.isEmpty else { return }
      let handle = left[random.below(left.count)]
      left.removeAll { number($0.message) == number(handle.message) }
      switch part {
      case .send, .delete: steps.append(.delete(handle))
      case .hide: steps.append(.hide(handle, [0, 5000][random.below(2)]))
      case .reject: steps.append(.reject(handle))
      }
    }
    let numbers = numbers
    do {
      var ahead: [QueueID: Int] = [:]
      for step in steps {
        if case .send(let draft) = step {
          _ = try draft.decide(machine.state, ahead: ahead[draft.queue, default: 0])
          ahead[draft.queue, default: 0] += 1
        } else {
          _ = try decide(step)
        }
      }
    } catch Refusal.queueFull {
      // What is deleted in the same transaction makes no room in it.
      return
    } catch is Refusal {
      #expect(!oracle.together { Self.follow(steps, [], numbers, &$0) }, "\(steps)")
      return
    }
    var sent: [UInt64] = []
    for step in steps {
      if case .send(let draft) = step {
        switch try draft.decide(machine.state, ahead: nil) {
        case .record(let entry): sent.append(try apply(entry))
        case .duplicate(_, let original): sent.append(original)
        }
      } else {
        _ = try apply(try decide(step))
      }
    }
    try machine.expire()
    #expect(oracle.together { Self.follow(steps, sent, numbers, &$0) }, "\(steps)")
  }

  private func decide(_ step: Step) throws -> Entry {
    switch step {
    case .send: throw BrokenInvariant(description: "a send is not decided here")
    case .delete(let handle):
      let entry = try machine.state.decideDelete(handle, from: handle.queue, isFenced: true)
      return try #require(entry)
    case .hide(let handle, let timeout):
      return try machine.state.decideChangeVisibility(
        handle, of: handle.queue, timeout: timeout, totalLimit: nil, isFenced: true)
    case .reject(let handle): return try machine.state.decideReject(handle)
    }
  }

  private static func follow(
    _ steps: [Step], _ sent: [UInt64], _ numbers: [UInt64: UInt64], _ oracle: inout Oracle
  ) -> Bool {
    var sent = sent[...]
    func number(_ handle: LeaseHandle) -> UInt64 { numbers[handle.message] ?? handle.message }
    return steps.allSatisfy { step in
      switch step {
      case .send(let draft):
        let number = sent.popFirst() ?? .max
        return draft.send(number, &oracle) == number || number == .max
      case .delete(let handle):
        return oracle.delete(
          number(handle), from: handle.queue, lease: handle.token, isFenced: true) == .done
      case .hide(let handle, let timeout):
        return oracle.changeVisibility(
          number(handle), of: handle.queue, timeout: .milliseconds(timeout), lease: handle.token,
          isFenced: true) == .done
      case .reject(let handle):
        return oracle.isHeld(handle.token, of: number(handle), in: handle.queue)
          && oracle.move(number(handle), from: handle.queue)
      }
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
    // In a checkpoint what waits to be freed has no timers.
    if !hasReadCheckpoint { #expect(fresh.nextTimer == machine.state.nextTimer) }
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
