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
  var timeline: Timeline
  var checks = Checks()
  var trace = TraceHash()
  /// Called before each call that changes the disk.
  var onCall: ((World) throws(Violation) -> Void)?
  /// Judges what the end of a process or of power left.
  private let judge: Judge

  private let random = StableRandom(seed: 1)
  private var process: SimulatedProcess?
  private(set) var machine: Machine?
  /// Grows with every process, so that answers of an older one count for nothing.
  var epoch = 0
  var handles: [(handle: LeaseHandle, queue: Int, number: UInt64)] = []
  /// Messages that were looked at, by queue, and where the next look goes on.
  var seen: [QueueID: [SeenMessage]] = [:]
  var cursors: [QueueID: WalkCursor] = [:]
  var ordered: [Int] = []
  var operations = 0
  /// Operations without an answer.
  var open: Set<Int> = []
  var violation: Violation?
  private var armed: Armed?
  private var nested: (calls: Int, steps: Int)?
  private var writerIsCalling = false
  private var steps: ArraySlice<Step> = []
  var stepsLeft: Int { steps.count }
  /// A failed sync may have lost pages that reads still show: only a reboot tells (L2).
  private var needsReboot = false
  /// Reads were made to fail, so that receives may miss messages.
  var readsMayFail = false
  /// Processes that were killed, and losses of power.
  private(set) var ends = 0
  /// A fault was planted since the process began.
  var mayFail = false
  /// The disk was limited since the process began; a store looks only now and then whether it is.
  var mayBeFull = false
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
      let process = SimulatedProcess(disk) { [weak self] process, call in
        self?.handle(call, process) ?? .asAsked
      }
      self.process = process
      do throws(PenstockError) {
        machine = try Machine(setup, process, clock, random)
      } catch {
        machine = nil
        if !hasEnded, violation == nil, error.code != .inputOutput || !mayFail && isStore {
          throw Violation(.legalCrashIsAccepted, "refused: \(error)")
        }
      }
      try rethrow()
      if hasEnded {
        try recoverDisk()
        continue
      }
      if let machine {
        checks.note(machine)
        // Until a start has returned, the promises of before it hold and no more.
        if let found { timeline.begin(from: found) }
        found = nil
        hasLostPower = false
        mayBeFull = disk.capacity != nil
        return
      }
      // A fault that was planted, or a disk too full to make a store on.
      disk.clearFaults()
      disk.kill()
      mayFail = false
      if !isStore, attempt > 0 { disk.capacity = nil }
    }
    throw Violation(.neverStuck, "the store does not start")
  }

  var hasEnded = false
  /// What the next start must find, if a process or power has ended.
  private var found: Timeline.Moment?
  private var endedBy = End.process
  /// Power went since the last start that returned.
  private var hasLostPower = false

  func rethrow() throws(Violation) { if let violation { throw violation } }

  private func recoverIfEnded() throws(Violation) {
    try rethrow()
    guard hasEnded else { return }
    try recoverDisk()
    try start()
  }

  /// Judges the disk that is left.
  private func recoverDisk() throws(Violation) {
    hasEnded = false
    mayFail = false
    readsMayFail = false
    open = []
    ends += 1
    epoch += 1
    machine = nil
    handles = handles.suffix(40)
    (seen, cursors) = ([:], [:])
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
    if call.kind == .remove {
      if call.path.hasSuffix(".seg") { checks.note(.removedSegment) }
      if call.path.hasSuffix(".checkpoint") { checks.note(.removedCheckpoint) }
    }
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

  func turn(_ worker: Worker, _ machine: Machine) {
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
      try checks.check(
        .neverStuck, turns < Machine.turnLimit, "the store does not come to rest: \(worker)")
    }
    try rethrow()
    if hasEnded { return }
    try checks.check(
      .neverStuck, mayFail || !machine.store.isClosed, "the store failed without a fault")
    try checks.check(
      .neverStuck, open.isEmpty || machine.store.metrics().waitingForRoom > 0,
      "at rest, and operations \(open.sorted()) were not answered")
  }

  /// Lets what waits for room in the log have it, or be refused.
  func makeRoom(_ machine: Machine) throws(Violation) {
    var turns = 0
    // What happens meanwhile would come before this operation in the model, and perhaps behind it
    // in the store.
    let held = nested
    nested = nil
    defer { nested = held }
    while machine.store.metrics().waitingForRoom > 0, !hasEnded, violation == nil {
      let due = machine.driver.due
      // Deliveries stay pending as long as they may; what is parked comes by the reader, too.
      if let worker = due.first(where: { $0 != .reader }) ?? due.first {
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
    case .reject: try reject(step, machine)
    case .look: look(queue, machine)
    case .sweep: try sweep(step, queue, machine)
    case .purge:
      try change(queue, machine) {
        machine.store.purgeQueue($0, $1)
      } _: { moment, id in
        moment.oracle.purgeQueue(id)
      }
    case .create: try create(step, queue, machine)
    case .commit: try commit(step, machine)
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
        machine.store.changeQueue(id, QueueSettingsChange { $0.retention = retention }) {
          completion($0.map { _ in })
        }
      } _: { moment, id in
        guard var settings = moment.oracle.settings(id) else { return }
        settings.retention = retention
        moment.oracle.changeQueue(id, settings)
      }
    case .describe: try describe(queue, machine)
    case .pass: clock.advance(by: .milliseconds(step.number(0, 0...10_000_000)))
    case .turn: turn(Worker(rawValue: step.number(0, 0...4)) ?? .writer, machine)
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
      if room > 0 { mayBeFull = true }
      disk.capacity = room == 0 ? nil : disk.used + UInt64(room) << 10
    }
    try rethrow()
  }

  private func arm(_ end: Armed) {
    if end.calls == 0 { self.end(end) } else { armed = end }
  }

  /// Whether there is a store on the disk; to make one needs space.
  private var isStore: Bool { disk.contents(of: Setup.directory + "/STORE") != nil }

  private func inject(_ step: Step) {
    mayFail = true
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
}

extension Step {
  /// Whether it may happen in the middle of a call.
  var canNest: Bool {
    switch verb {
    // A change of retention may have to wait for the writer.
    case .send, .receive, .delete, .hide, .purge, .create, .remove, .commit, .describe, .pass: true
    case .turn: number(0, 0...4) != 0
    default: false
    }
  }
}
