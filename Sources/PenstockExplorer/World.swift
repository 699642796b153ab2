// SPDX-License-Identifier: Apache-2.0
internal import Penstock
internal import PenstockSystem
internal import PenstockTesting

/// Lets a history happen to a store on a simulated machine, beside the model of what must come of
/// it.
///
/// Everything is a function of the setup and the steps: one thread, simulated disk, clock and
/// random numbers, and turns of the store's threads where the history says so. A step may happen in
/// the middle of a file call of the writer, as another thread's would.
// Unchecked: a world has one thread; the store's callbacks come on it.
final class World: @unchecked Sendable {
  private enum End { case power, process }
  private struct Armed {
    var calls: Int
    var end: End
    var seed: UInt64
    /// Calls into the next recovery before power is lost again.
    var again: Int?
  }

  let setup: Setup
  let disk: SimulatedFileSystem
  let clock = SimulatedClock()
  private(set) var timeline: Timeline
  var checks = Checks()
  private(set) var trace = TraceHash()
  /// Called before each call that changes the disk.
  var onCall: ((World) throws(Violation) -> Void)?
  /// Judges what the end of a process or of power left.
  private let judge: Judge

  private let random = StableRandom(seed: 1)
  private var process: SimulatedProcess?
  private var machine: Machine?
  /// Grows with every process, so that answers of an older one count for nothing.
  private var epoch = 0
  private var handles: [(handle: LeaseHandle, queue: Int, number: UInt64)] = []
  private var ordered: [Int] = []
  private var operations = 0
  private var violation: Violation?
  private var armed: Armed?
  private var nested: (calls: Int, steps: Int)?
  private var writerIsCalling = false
  private var steps: ArraySlice<Step> = []
  var stepsLeft: Int { steps.count }
  /// A failed sync may have lost pages that reads still show: only a reboot tells (L2).
  private var needsReboot = false
  /// Reads were made to fail, so that receives may miss messages.
  private var readsMayFail = false
  private(set) var starts = 0
  private(set) var calls = 0

  init(_ setup: Setup) {
    self.setup = setup
    disk = SimulatedFileSystem(sectorSize: setup.sectorSize, traceLimit: 64)
    timeline = Timeline(at: clock.wallMilliseconds())
    judge = Judge(setup)
  }

  /// Starts a store, takes the steps one after another, and at the end kills the process and loses
  /// power.
  func run(_ history: [Step]) throws(Violation) {
    steps = history[...]
    if machine == nil { try start() }
    while let step = steps.popFirst() {
      try take(step)
      try recoverIfEnded()
    }
    armed = nil
    nested = nil
  }

  /// The end of a history that is run by seed: the last acknowledged must be there, too.
  func finish() throws(Violation) {
    try take(Step(.settle))
    try recoverIfEnded()
    try take(Step(.kill))
    try recoverIfEnded()
    try take(Step(.crash))
    try recoverIfEnded()
  }

  // MARK: Processes

  private func start() throws(Violation) {
    for attempt in 0..<20 {
      epoch += 1
      starts += 1
      let process = SimulatedProcess(disk) { [unowned self] process, call in
        handle(call, process)
      }
      self.process = process
      do throws(PenstockError) {
        machine = try Machine(setup, process, clock, random)
      } catch {
        machine = nil
        if !hasEnded, violation == nil, error.code != .inputOutput {
          throw Violation(.legalCrashIsAccepted, "refused: \(error)")
        }
      }
      try rethrow()
      if hasEnded {
        try recoverDisk()
        continue
      }
      if machine != nil {
        // Until a start has returned, the promises of before it hold and no more.
        if let found { timeline.begin(from: found) }
        found = nil
        hasLostPower = false
        return
      }
      // A fault that was planted, or a disk too full to make a store on.
      disk.clearFaults()
      disk.kill()
      if attempt > 0 { disk.capacity = nil }
    }
    throw Violation(.neverStuck, "the store does not start")
  }

  private var hasEnded = false
  /// What the next start must find, if a process or power has ended.
  private var found: Timeline.Moment?
  private var endedBy = End.process
  /// Power went since the last start that returned.
  private var hasLostPower = false

  private func rethrow() throws(Violation) { if let violation { throw violation } }

  private func recoverIfEnded() throws(Violation) {
    try rethrow()
    guard hasEnded else { return }
    try recoverDisk()
    try start()
  }

  /// Judges the disk that is left.
  private func recoverDisk() throws(Violation) {
    hasEnded = false
    epoch += 1
    machine = nil
    handles = handles.suffix(40)
    ordered = []
    nested = nil
    if endedBy == .power { hasLostPower = true }
    let least = hasLostPower ? timeline.least : timeline.written
    let story = "after \(endedBy == .power ? "loss of power" : "a kill") at call \(calls)"
    found = try judge.judge(disk, timeline, least: least, clock, &checks, story)
  }

  /// What a call of the process becomes; power may end here, and other steps may happen first.
  private func handle(_ call: Call, _ process: SimulatedProcess) -> SimulatedProcess.Handling {
    calls += 1
    trace.add(call)
    if var nested, writerIsCalling {
      nested.calls -= 1
      self.nested = nested.calls > 0 ? nested : nil
      if nested.calls <= 0 { takeNested(nested.steps) }
    }
    if let onCall, violation == nil {
      do throws(Violation) { try onCall(self) } catch { violation = error }
    }
    if var armed {
      armed.calls -= 1
      self.armed = armed
      if armed.calls < 0 {
        self.armed = nil
        end(armed)
      }
    }
    return setup.canary?.handling(of: call) ?? .asAsked
  }

  private func takeNested(_ count: Int) {
    writerIsCalling = false
    defer { writerIsCalling = true }
    for _ in 0..<count {
      guard let step = steps.first, step.canNest, violation == nil, !hasEnded else { return }
      steps.removeFirst()
      do throws(Violation) { try take(step) } catch { violation = error }
    }
  }

  private func end(_ armed: Armed) {
    let end = needsReboot ? .power : armed.end
    switch end {
    case .power:
      // Faults of the old process are forgotten with it.
      var chooser = SeededChooser(seed: armed.seed)
      disk.crash(choosing: &chooser, garbling: setup.isGarbling)
      needsReboot = false
    case .process: disk.kill()
    }
    hasEnded = true
    endedBy = end
    if let again = armed.again {
      self.armed = Armed(calls: again, end: .power, seed: armed.seed &+ 1)
    }
    process?.end()
  }

  // MARK: Turns

  private func turn(_ worker: Worker, _ machine: Machine) {
    let before = writerIsCalling
    writerIsCalling = worker == .writer
    machine.driver.turn(worker)
    writerIsCalling = before
  }

  private func settle() throws(Violation) {
    guard let machine else { return }
    var turns = 0
    while !hasEnded, violation == nil, let worker = machine.driver.due.first {
      turn(worker, machine)
      turns += 1
      try checks.check(.neverStuck, turns < Machine.turnLimit, "the store does not come to rest")
    }
    try rethrow()
    if hasEnded || machine.store.isClosed { return }
    try checks.check(
      .neverStuck, ordered.isEmpty || machine.store.isWaitingForRoom,
      "at rest, and operations \(ordered) were not answered")
  }

  /// Lets what waits for room in the log have it, or be refused.
  private func makeRoom(_ machine: Machine) throws(Violation) {
    var turns = 0
    // What happens meanwhile would come before this operation in the model, and perhaps behind it
    // in the store.
    let held = nested
    nested = nil
    defer { nested = held }
    while machine.store.isWaitingForRoom, !hasEnded, violation == nil {
      if let worker = machine.driver.due.first(where: { $0 != .reader }) {
        turn(worker, machine)
      } else if let next = machine.driver.nextDue {
        clock.advance(by: .nanoseconds(Int64(clamping: next - clock.monotonicNanoseconds())))
      }
      turns += 1
      try checks.check(.neverStuck, turns < Machine.turnLimit, "waits for room for ever")
    }
    // A receive that found nothing when there was room has waited long enough.
    if turns > 0, !hasEnded { turn(.scheduler, machine) }
  }

  // MARK: Steps

  private func take(_ step: Step) throws(Violation) {
    trace.add(step.description)
    guard let machine, !hasEnded else { return }
    let queue = step.number(0, 0...3)
    switch step.verb {
    case .send: try send(step, queue, machine)
    case .receive: try receive(step, queue, machine)
    case .delete: try delete(step, machine)
    case .hide: try hide(step, machine)
    case .purge:
      try change(queue, machine) {
        machine.store.purgeQueue($0, $1)
      } _: { moment, id in
        moment.oracle.purgeQueue(id)
      }
    case .create: try create(queue, machine)
    case .remove:
      try change(queue, machine) {
        machine.store.deleteQueue($0, $1)
      } _: { moment, id in
        moment.oracle.deleteQueue(id)
        moment.queues[queue] = nil
      }
    case .retain:
      let retention = Duration.seconds(step.number(1, 1...1_000_000))
      try change(queue, machine) { id, completion in
        machine.store.changeQueue(id, QueueSettingsChange(retention: retention)) {
          completion($0.map { _ in })
        }
      } _: { moment, id in
        guard var settings = moment.oracle.settings(id) else { return }
        settings.retention = retention
        moment.oracle.changeQueue(id, settings)
      }
    case .describe: try describe(queue, machine)
    case .pass: clock.advance(by: .milliseconds(step.number(0, 0...10_000_000)))
    case .turn: turn(Worker(rawValue: step.number(0, 0...3)) ?? .writer, machine)
    case .settle: try settle()
    case .during: nested = (step.number(0, 0...100), step.number(1, 0...10))
    case .crash:
      let again = step.number(2, 0...1000)
      arm(
        Armed(
          calls: step.number(0, 0...1000), end: .power, seed: UInt64(step.number(1, 0...Int.max)),
          again: again > 0 ? again : nil))
    case .kill: arm(Armed(calls: step.number(0, 0...1000), end: .process, seed: 0))
    case .restart: try restart(machine)
    case .fault: inject(step)
    case .machine: break
    case .fill:
      let room = step.number(0, 0...100_000)
      disk.capacity = room == 0 ? nil : disk.used + UInt64(room) << 10
    }
    try rethrow()
  }

  private func arm(_ end: Armed) {
    if end.calls == 0 { self.end(end) } else { armed = end }
  }

  private func inject(_ step: Step) {
    let kinds: [Set<CallKind>] = [
      [.write], [.syncData], [.sync], [.syncDirectory], [.rename], [.open], [.read],
    ]
    let kind = step.number(0, 0...kinds.count - 1)
    if kind > 4 { readsMayFail = true }
    let effects: [Fault.Effect] = [.nothing, .partial(bytes: 512), .complete, .dropsPending]
    let effect = effects[step.number(2, 0...3)]
    if effect == .dropsPending, kind == 1 || kind == 2 || kind == 3 { needsReboot = true }
    disk.inject(
      Fault(
        kinds[kind], after: step.number(1, 0...1000), isPermanent: step.number(3, 0...1) == 1,
        errno: kind == 0 && step.number(1, 0...1000) % 2 == 1 ? 28 : 5, effect: effect))
  }

  private func restart(_ machine: Machine) throws(Violation) {
    try settle()
    if hasEnded || machine.store.isClosed { return }
    nested = nil
    let before = machine.store.stateHash
    let box = Box<Void>()
    machine.store.close { box.result = $0 }
    var turns = 0
    while !machine.driver.isOver, !hasEnded, turns < Machine.turnLimit {
      guard let worker = machine.driver.due.first else { break }
      turn(worker, machine)
      turns += 1
    }
    try rethrow()
    if hasEnded { return }
    guard machine.driver.isOver, let result = box.result else {
      throw Violation(.neverStuck, "the store does not close")
    }
    guard case .success = result else {
      // A fault hit the seal: what is on disk is as after a kill.
      return end(Armed(calls: 0, end: .process, seed: 0))
    }
    timeline.acknowledge(timeline.last, survivesPowerLoss: true)
    self.machine = nil
    ordered = []
    disk.clearFaults()
    try start()
    if hasEnded { return }
    let after = self.machine?.store.stateHash
    try checks.check(.closedComesBackWhole, before == after, "another state after a clean close")
  }

  // MARK: Operations

  private var now: Int64 { machine?.store.now.milliseconds ?? clock.wallMilliseconds() }

  /// Submits an operation, lets it happen in the model as soon as it does in the store, and binds
  /// the timeline when it is answered.
  ///
  /// - Parameters:
  ///   - changes: whether it changes anything, so that it is synced; else it tells of what was
  ///     before it.
  ///   - expected: how the model says it is answered.
  private func operate<T: Sendable>(
    _ machine: Machine, isSynced: Bool = true, changes: () -> Bool,
    _ submit: (@escaping Completion<T>) -> Void,
    model: (inout Timeline.Moment) -> Void,
    answered: @escaping @Sendable (T) throws(Violation) -> Void = { _ in },
    expected: PenstockError.Code? = nil
  ) throws(Violation) {
    let epoch = self.epoch
    operations += 1
    let operation = operations
    let box = Box<T>()
    let state = Flow()
    submit { [unowned self] result in
      box.result = result
      if state.isApplied { complete(operation, epoch, state, result, expected, answered) }
    }
    try makeRoom(machine)
    if hasEnded { return }
    if case .failure(let error)? = box.result, error.code != expected {
      // Refused before it happened: by a full disk or a failed store.
      trace.add(error.code.description)
      return
    }
    let changes = expected == nil && changes()
    if changes {
      state.moment = timeline.happen(at: now, isSynced: isSynced, model)
    } else if isSynced {
      // It tells of what was before.
      state.moment = setup.durability == .synced ? timeline.lastSynced : timeline.last
    }
    state.isApplied = true
    state.isOrdered = isSynced && changes
    state.isDurable = isSynced && setup.durability == .synced
    if let result = box.result {
      complete(operation, epoch, state, result, expected, answered)
    } else if state.isOrdered {
      ordered.append(operation)
    }
    try rethrow()
  }

  private final class Flow: @unchecked Sendable {  // a world has one thread
    var moment = 0
    var isApplied = false
    /// Whether it waits for the disk, so that its place among the answers is fixed.
    var isOrdered = false
    /// Whether its answer binds a store that loses power.
    var isDurable = false
  }

  private func complete<T>(
    _ operation: Int, _ epoch: Int, _ flow: Flow, _ result: Result<T, PenstockError>,
    _ expected: PenstockError.Code?, _ answered: (T) throws(Violation) -> Void
  ) {
    guard epoch == self.epoch, !hasEnded, violation == nil else { return }
    do throws(Violation) {
      switch result {
      case .success(let value):
        trace.add("\(operation)")
        try checks.check(
          .answersAgree, expected == nil, "operation \(operation) succeeded, but should not have")
        try answered(value)
        timeline.acknowledge(flow.moment, survivesPowerLoss: flow.isDurable)
      case .failure(let error):
        trace.add(error.code.description)
        if error.family != .rejected || error.code == .unreadableMessage && readsMayFail { break }
        try checks.check(
          .answersAgree, error.code == expected, "operation \(operation) was refused: \(error)")
        timeline.acknowledge(flow.moment, survivesPowerLoss: flow.isDurable)
      }
      if flow.isOrdered, let place = ordered.firstIndex(of: operation) {
        try checks.check(
          .answersComeInOrder, place == 0 || isFailure(result),
          "operation \(operation) was answered before \(ordered[0])")
        ordered.remove(at: place)
      }
    } catch { violation = error }
  }

  private func isFailure<T>(_ result: Result<T, PenstockError>) -> Bool {
    if case .failure = result { true } else { false }
  }

  private func id(_ queue: Int) -> QueueID {
    timeline.present.queues[queue] ?? QueueID(1_000_000)
  }

  private func change(
    _ queue: Int, _ machine: Machine, _ submit: (QueueID, @escaping Completion<Void>) -> Void,
    _ model: (inout Timeline.Moment, QueueID) -> Void
  ) throws(Violation) {
    let id = id(queue)
    let exists = timeline.present.queues[queue] != nil
    try operate(
      machine, changes: { true }, { submit(id, $0) }, model: { model(&$0, id) },
      expected: exists ? nil : .queueNotFound)
  }

  private func create(_ queue: Int, _ machine: Machine) throws(Violation) {
    let name = "q\(queue)"
    let exists = timeline.present.queues[queue] != nil
    try operate(
      machine, changes: { !exists },
      { machine.store.createQueue(name, QueueSettingsChange(), $0) },
      model: { moment in
        guard let id = machine.store.lookup(name)?.id else { return }
        moment.queues[queue] = id
        moment.oracle.createQueue(id, QueueSettings())
      })
  }

  private func describe(_ queue: Int, _ machine: Machine) throws(Violation) {
    // Counts include what has outlived its retention until the scheduler has seen to that; looking
    // lets time go on.
    _ = machine.store.lookup("q\(queue)")
    for _ in 0..<1000 where machine.driver.due.contains(.scheduler) { turn(.scheduler, machine) }
    // A store that failed logs no expiry any more.
    if machine.store.isClosed { return }
    let id = id(queue)
    let exists = timeline.present.queues[queue] != nil
    let present = timeline.present
    let now = now
    try operate(
      machine, changes: { false }, { machine.store.describe(id, $0) }, model: { _ in },
      answered: { (description: QueueDescription) throws(Violation) in
        var oracle = present.oracle
        oracle.advance(to: now)
        guard oracle.counts(id) == description.counts else {
          throw Violation(.answersAgree, "counts of queue \(queue): \(description.counts)")
        }
      }, expected: exists ? nil : .queueNotFound)
  }

  private func send(_ step: Step, _ queue: Int, _ machine: Machine) throws(Violation) {
    let id = id(queue)
    let exists = timeline.present.queues[queue] != nil
    let delay = Duration.milliseconds(step.number(3, 0...900_000))
    let numbers = timeline.numbers(
      step.number(1, 1...20), queue: queue, size: step.number(2, 8...20_000))
    let entries = numbers.map {
      SendEntry(MessageContent(body: timeline.body($0)), delay: delay)
    }
    try operate(
      machine, changes: { true }, { machine.store.send(entries, to: id, $0) },
      model: { moment in
        for number in numbers { moment.oracle.send(number, to: id, delay: delay) }
      },
      answered: { results throws(Violation) in
        for case .failure(let error) in results {
          throw Violation(.answersAgree, "a message of a batch was refused: \(error)")
        }
      }, expected: exists ? nil : .queueNotFound)
  }

  private func receive(_ step: Step, _ queue: Int, _ machine: Machine) throws(Violation) {
    let id = id(queue)
    let exists = timeline.present.queues[queue] != nil
    let limit = step.number(1, 1...50)
    let timeout = Duration.milliseconds(step.number(2, 0...43_200_000))
    let expectation = Expectation()
    try operate(
      machine, isSynced: false,
      changes: {
        var oracle = timeline.present.oracle
        oracle.advance(to: now)
        return !oracle.receive(from: id, limit: limit, timeout: timeout).isEmpty
      },
      {
        machine.store.receive(
          ReceiveRequest(maximumMessages: limit, wait: .zero, visibilityTimeout: timeout),
          from: id, $0)
      },
      model: { moment in
        expectation.messages = moment.oracle.receive(from: id, limit: limit, timeout: timeout)
      },
      answered: { [unowned self] messages throws(Violation) in
        try received(messages, expectation.messages, queue)
      }, expected: exists ? nil : .queueNotFound)
  }

  private final class Expectation: @unchecked Sendable {  // a world has one thread
    var messages: [Oracle.Message] = []
  }

  private func received(
    _ messages: [ReceivedMessage], _ expected: [Oracle.Message], _ queue: Int
  ) throws(Violation) {
    let found = messages.compactMap { timeline.number($0.content.body) }
    trace.add(found.description)
    try checks.check(
      .answersAgree,
      readsMayFail
        || found == expected.map(\.number)
          && messages.map(\.receiveCount) == expected.map(\.receiveCount)
          && messages.map(\.leaseEndsAt.milliseconds) == expected.map { $0.hiddenUntil ?? 0 },
      "received \(found), the model says \(expected.map(\.number))")
    for (message, number) in zip(messages, found) {
      handles.append((message.handle, queue, number))
    }
    if setup.durability == .synced { timeline.deliver(found) }
  }

  private func delete(_ step: Step, _ machine: Machine) throws(Violation) {
    guard !handles.isEmpty else { return }
    let (handle, _, number) = handles[step.number(0, 0...1_000_000) % handles.count]
    let exists = timeline.present.queues.values.contains(handle.queue)
    try operate(
      machine,
      changes: { exists && isThere(number, handle.queue) },
      { machine.store.delete([handle], from: handle.queue, $0) },
      model: { $0.oracle.delete(number, from: handle.queue) },
      answered: { results throws(Violation) in
        guard case .failure(let error)? = results.first, exists || error.code != .queueNotFound
        else { return }
        throw Violation(.answersAgree, "a delete was refused: \(error)")
      })
  }

  private func isThere(_ number: UInt64, _ queue: QueueID) -> Bool {
    var oracle = timeline.present.oracle
    oracle.advance(to: now)
    return oracle.messages(queue).contains { $0.number == number }
  }

  private func hide(_ step: Step, _ machine: Machine) throws(Violation) {
    guard !handles.isEmpty else { return }
    let (handle, _, number) = handles[step.number(0, 0...1_000_000) % handles.count]
    let timeout = Duration.milliseconds(step.number(1, 0...43_200_000))
    var oracle = timeline.present.oracle
    oracle.advance(to: now)
    let isDone = oracle.changeVisibility(number, of: handle.queue, timeout: timeout) == .done
    try operate(
      machine, changes: { isDone },
      {
        machine.store.changeVisibility(
          [VisibilityChange(handle: handle, timeout: timeout)], of: handle.queue, $0)
      },
      model: { _ = $0.oracle.changeVisibility(number, of: handle.queue, timeout: timeout) },
      answered: { results throws(Violation) in
        let succeeded = if case .success? = results.first { true } else { false }
        guard succeeded != isDone else { return }
        throw Violation(.answersAgree, "a change of visibility: \(results)")
      })
  }
}

extension Step {
  /// Whether it may happen in the middle of a call.
  var canNest: Bool {
    switch verb {
    case .send, .receive, .delete, .hide, .purge, .create, .remove, .retain, .describe, .pass: true
    case .turn: number(0, 0...3) != 0
    default: false
    }
  }
}
