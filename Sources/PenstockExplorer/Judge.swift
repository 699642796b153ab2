// SPDX-License-Identifier: Apache-2.0
internal import Penstock
internal import PenstockSystem
internal import PenstockTesting

/// Opens what the end of a process or of power left on a disk, and holds it against what must and
/// what may be there.
///
/// It looks as a client does: names, counts, and receives, now and around the end of every delay
/// and lease that the model knows of. What was seen must be what one of the allowed moments of the
/// timeline would have shown; if none would, the checks say which promise is broken.
struct Judge {
  /// A message as a receive showed it.
  struct Sighting: Hashable {
    var time: Int64
    var queue: Int
    var number: UInt64
    var receiveCount: Int
    var sentAt: Int64
    var firstReceivedAt: Int64
    /// When it was moved to the dead letters.
    var movedAt: Int64?
  }

  /// What a store showed of itself.
  struct Sight {
    var names: [String] = []
    var queues: [Int: QueueID] = [:]
    var settings: [Int: QueueSettings] = [:]
    var counts: [Int: QueueCounts] = [:]
    /// By so much the store's counts may be too high.
    var overdue: [Int: Int] = [:]
    /// Which group of which queue comes first is not said: those of a time are together, and what
    /// a group has in the order in which it came.
    var sightings: [Sighting] = []
    /// By queue and deduplication id, the message that a send with it repeats.
    var repeats: [Int: [Int: UInt64]] = [:]

    /// Whether a store that showed `seen` may be the one that this describes.
    func fits(_ seen: Sight) -> Bool {
      names == seen.names && queues == seen.queues && settings == seen.settings
        && sightings == seen.sightings && repeats == seen.repeats
        && counts.count == seen.counts.count
        && counts.allSatisfy { number, counts in
          seen.counts[number].map { counts.isShown(by: $0, seen.overdue[number] ?? 0) } ?? false
        }
    }
  }

  let setup: Setup
  /// What it looks at was damaged on purpose.
  var isDamaged = false

  /// So long are messages hidden that were seen, in milliseconds.
  static let hiding: Int64 = 40_000_000

  init(_ setup: Setup) { self.setup = setup }

  var ofDamaged: Judge {
    var judge = self
    judge.isDamaged = true
    return judge
  }

  /// Judges a copy of `disk`, on which no process runs.
  ///
  /// - Returns: the moment that came back.
  func judge(
    _ disk: SimulatedFileSystem, _ timeline: Timeline, least: Int, _ clock: SimulatedClock,
    _ checks: inout Checks, _ story: String
  ) throws(Violation) -> Timeline.Moment {
    do throws(Violation) {
      return try look(at: disk.copy(), timeline, least: least, clock, &checks)
    } catch {
      throw Violation(error.invariant, "\(story): \(error.story)")
    }
  }

  private func look(
    at disk: SimulatedFileSystem, _ timeline: Timeline, least: Int, _ clock: SimulatedClock,
    _ checks: inout Checks
  ) throws(Violation) -> Timeline.Moment {
    disk.kill()
    disk.capacity = nil
    let machine = try recoverTwice(disk, clock, &checks)
    let sight = try see(machine, timeline, least: least)
    let opened = machine.openedAt
    let moments = timeline.moments[least...]
    let predicted = moments.map { predict($0, sight.times, at: opened, timeline) }
    let fitting = zip(moments, predicted).filter { $1.fits(sight.sight) }.map(\.0)
    // Two that look alike now may not later: the log tells which one it is.
    let lsn = machine.machine.store.recovery.lastLSN
    if var moment = fitting.last(where: { $0.lsn <= lsn }) ?? fitting.last {
      try checks.check(.recoveredIsOnePast, true, "")
      try diagnose(sight.sight, predicted, timeline, least: least, at: opened, &checks)
      try goOn(disk, machine, timeline, clock, &checks)
      moment.lsn = lsn
      return moment
    }
    try diagnose(sight.sight, predicted, timeline, least: least, at: opened, &checks)
    throw Violation(
      .recoveredIsOnePast,
      "what came back is no moment from \(least) to \(timeline.last): \(describe(sight.sight)), "
        + "moment \(least) has \(describe(predicted[0]))")
  }

  func describe(_ sight: Sight) -> String {
    let messages = sight.sightings.map {
      "\($0.number) x\($0.receiveCount) at \($0.time % 1_000_000) sent \($0.sentAt % 1_000_000) "
        + "first received \($0.firstReceivedAt % 1_000_000)"
        + ($0.movedAt.map { " moved \($0 % 1_000_000)" } ?? "")
    }
    let counts = sight.counts.sorted { $0.key < $1.key }.map { "\($0.value)" }
    let repeats = sight.repeats.isEmpty ? "" : " repeats \(sight.repeats)"
    return "\(sight.names) \(counts) \(messages.joined(separator: ", "))\(repeats)"
  }

  // MARK: Opening

  private struct Opened {
    var machine: Machine
    var openedAt: Int64
  }

  /// Recovers, loses what was not synced in that, and recovers again: both must find the same.
  private func recoverTwice(
    _ disk: SimulatedFileSystem, _ clock: SimulatedClock, _ checks: inout Checks
  ) throws(Violation) -> Opened {
    let first = try open(disk, clock, seed: 100, &checks)
    let hash = first.store.stateHash
    let broken = first.store.brokenInvariant
    try checks.check(.stateFitsTogether, broken == nil, broken ?? "")
    let files = try snapshot(disk)
    var oldest = OldestChooser()
    disk.crash(choosing: &oldest)
    let second = try open(disk, clock, seed: 200, &checks)
    try checks.check(
      .recoveryIsStable, second.store.stateHash == hash, "a second start finds another state")
    let later = try snapshot(disk)
    try checks.check(
      .recoveryIsStable, later == files,
      "a second start changes \(Self.difference(files, later))")
    return Opened(machine: second, openedAt: second.store.now.milliseconds)
  }

  func open(
    _ disk: SimulatedFileSystem, _ clock: SimulatedClock, seed: UInt64, _ checks: inout Checks
  ) throws(Violation) -> Machine {
    let process = SimulatedProcess(disk) { _, call in
      setup.canary?.handling(of: call) ?? .asAsked
    }
    let copy = SimulatedClock(
      wallMilliseconds: clock.wallMilliseconds(), monotonicNanoseconds: clock.monotonicNanoseconds()
    )
    let machine: Machine
    do throws(PenstockError) {
      machine = try Machine(setup, process, copy, StableRandom(seed: seed))
    } catch { throw Violation(.legalCrashIsAccepted, "refused: \(error)") }
    let spoiled = machine.store.recovery.damagedCheckpoints
    try checks.check(
      .legalCrashIsAccepted, isDamaged || spoiled.isEmpty,
      "a checkpoint was not whole: \(spoiled)")
    checks.note(machine)
    return machine
  }

  private static func difference(
    _ one: [String: [UInt8]], _ other: [String: [UInt8]]
  ) -> [String] {
    Set(one.keys).union(other.keys).filter { one[$0] != other[$0] }.sorted()
  }

  /// Names and contents of all files but the indexes, which may be missed; of a prepared segment
  /// what is behind the header, for the rest of it is written anew before it is used.
  private func snapshot(_ disk: SimulatedFileSystem) throws(Violation) -> [String: [UInt8]] {
    guard let names = try? disk.list(Setup.directory) else {
      throw Violation(.recoveryIsStable, "the store's directory cannot be listed")
    }
    return Dictionary(
      uniqueKeysWithValues: names.filter { !$0.hasSuffix(".index") }.map { name in
        let bytes = disk.contents(of: Setup.directory + "/" + name) ?? []
        return (name, name.hasSuffix(".next") ? Array(bytes.dropFirst(4096)) : bytes)
      })
  }

  // MARK: Looking

  /// When to look: now, around every end of a delay or lease that an allowed moment knows, and when
  /// all are over.
  func times(_ timeline: Timeline, least: Int, from opened: Int64) -> [Int64] {
    var times: Set<Int64> = [opened]
    for moment in timeline.moments[least...] {
      for id in moment.queues.values {
        for message in moment.oracle.messages(id) {
          guard let end = message.hiddenUntil, end > opened, end < opened + Self.hiding / 2 else {
            continue
          }
          times.formUnion([max(opened, end - 1), end])
        }
      }
    }
    return Array(times.sorted().prefix(400)) + [opened + Self.hiding / 2]
  }

  private func see(
    _ opened: Opened, _ timeline: Timeline, least: Int
  ) throws(Violation) -> (sight: Sight, times: [Int64]) {
    let machine = opened.machine
    let store = machine.store
    var sight = Sight(names: store.queueNames())
    let queues = (0...3).compactMap { number in
      store.lookup("q\(number)").map { (number: number, id: $0.id) }
    }
    sight.queues = Dictionary(uniqueKeysWithValues: queues.map { ($0.number, $0.id) })
    let times = times(timeline, least: least, from: opened.openedAt)
    for time in times {
      machine.clock.advance(by: .milliseconds(max(0, time - store.now.milliseconds)))
      guard machine.settle() else { throw Violation(.neverStuck, "a recovered store has no rest") }
      for (number, id) in queues {
        guard let description = store.lookup(id) else { continue }
        if time == times[0] {
          sight.settings[number] = description.settings
          sight.counts[number] = description.counts
          sight.overdue[number] = store.overdue(id)
        }
        // A receive gives what is in memory; what is parked comes with the next ones.
        var drained: [Sighting] = []
        while store.lookup(id)?.counts.visible ?? 0 > 0 {
          let more = try receive(from: id, number, machine)
          if more.isEmpty { break }
          drained += try sightings(more, number, timeline, time)
          // What is behind it in its group comes when it is gone.
          if description.settings.isFIFO { try delete(more, from: id, machine) }
        }
        sight.sightings += lined(drained, description.settings.isFIFO, timeline)
        if time == times[0], description.settings.isFIFO {
          sight.repeats[number] = try repeats(id, number, machine, timeline)
        }
      }
    }
    return (sight, times)
  }

  private func receive(
    from id: QueueID, _ queue: Int, _ machine: Machine
  ) throws(Violation) -> [ReceivedMessage] {
    let request = ReceiveRequest(
      maximumMessages: 1000, wait: .zero, visibilityTimeout: .milliseconds(Self.hiding))
    let answer = machine.answer { _ = machine.store.receive(request, from: id, $0) }
    guard case .success(let messages)? = answer else {
      throw Violation(
        .recoveredWasSubmitted, "a receive after the recovery: \(String(describing: answer))")
    }
    return messages
  }

  private func delete(
    _ messages: [ReceivedMessage], from id: QueueID, _ machine: Machine
  ) throws(Violation) {
    let answer = machine.answer { machine.store.delete(messages.map(\.handle), from: id, $0) }
    guard case .success(let results)? = answer,
      results.allSatisfy({ if case .success = $0 { true } else { false } })
    else {
      throw Violation(
        .recoveredGoesOn, "a delete after the recovery: \(String(describing: answer))")
    }
  }

  /// The sightings of one queue at one time, those of each group together. Dead letters of a
  /// standard queue come as they were moved: those that were in a group together, in its order.
  private func lined(
    _ drained: [Sighting], _ isFIFO: Bool, _ timeline: Timeline
  ) -> [Sighting] {
    func line(_ index: Int) -> (Int, Int) {
      let line = timeline.sent[drained[index].number]?.line ?? 0
      return (drained[index].movedAt == nil || isFIFO ? line : -1 - line, index)
    }
    return drained.indices.sorted { line($0) < line($1) }.map { drained[$0] }
  }

  /// Which sends the store remembers: it is asked to repeat them, in a group of their own, and what
  /// it took for new is deleted.
  private func repeats(
    _ id: QueueID, _ queue: Int, _ machine: Machine, _ timeline: Timeline
  ) throws(Violation) -> [Int: UInt64] {
    let ids = timeline.repetitions[queue, default: []].sorted()
    if ids.isEmpty { return [:] }
    let entries = ids.map {
      SendEntry(
        MessageContent(body: [1], groupID: "repeats", deduplicationID: "d\($0)"), delay: .zero)
    }
    let answer = machine.answer { machine.store.send(entries, to: id, $0) }
    guard case .success(let results)? = answer else {
      throw Violation(
        .recoveredGoesOn, "sends after the recovery: \(String(describing: answer))")
    }
    var repeats: [Int: UInt64] = [:]
    var isNew = false
    for (id, result) in zip(ids, results) {
      guard case .success(let receipt) = result else { continue }
      if !receipt.isDuplicate { isNew = true }
      repeats[id] = receipt.isDuplicate ? timeline.number(lsn: receipt.lsn) : nil
    }
    if isNew { try delete(try receive(from: id, queue, machine), from: id, machine) }
    return repeats
  }

  /// What was received, told by the bytes.
  func sightings(
    _ messages: [ReceivedMessage], _ queue: Int, _ timeline: Timeline, _ time: Int64
  ) throws(Violation) -> [Sighting] {
    var sightings: [Sighting] = []
    for message in messages {
      guard let known = timeline.number(message.content.body) else {
        throw Violation(
          .recoveredWasSubmitted, "a message with bytes that nobody sent: \(message.id)")
      }
      sightings.append(
        Sighting(
          time: time, queue: queue, number: known, receiveCount: message.receiveCount,
          sentAt: message.sentAt.milliseconds,
          firstReceivedAt: message.firstReceivedAt.milliseconds,
          movedAt: message.origin?.movedAt.milliseconds))
    }
    return sightings
  }

  /// What a moment would have shown.
  func predict(
    _ moment: Timeline.Moment, _ times: [Int64], at opened: Int64, _ timeline: Timeline
  ) -> Sight {
    var sight = Sight(names: moment.queues.keys.sorted().map { "q\($0)" })
    sight.queues = moment.queues
    var oracle = moment.oracle
    for time in times {
      oracle.advance(to: time)
      for (number, id) in moment.queues.sorted(by: { $0.key < $1.key }) {
        if time == times[0] {
          sight.settings[number] = oracle.settings(id)
          sight.counts[number] = oracle.counts(id)
        }
        let isFIFO = oracle.settings(id)?.isFIFO ?? false
        var drained: [Sighting] = []
        while case let more = oracle.receive(
          from: id, limit: 1000, timeout: .milliseconds(Self.hiding)), !more.isEmpty
        {
          for message in more {
            drained.append(
              Sighting(
                time: time, queue: number, number: message.number,
                receiveCount: message.receiveCount, sentAt: message.sentAt,
                firstReceivedAt: message.firstReceivedAt ?? 0, movedAt: message.movedAt))
            if isFIFO { oracle.delete(message.number, from: id) }
          }
          if !isFIFO { break }
        }
        sight.sightings += lined(drained, isFIFO, timeline)
        if time == times[0], isFIFO {
          sight.repeats[number] = repeats(oracle, id, number, timeline)
        }
      }
    }
    return sight
  }

  private func repeats(
    _ oracle: Oracle, _ id: QueueID, _ queue: Int, _ timeline: Timeline
  ) -> [Int: UInt64] {
    var repeats: [Int: UInt64] = [:]
    for repetition in timeline.repetitions[queue, default: []] {
      repeats[repetition] = oracle.original(of: "d\(repetition)", group: "", in: id)
    }
    return repeats
  }

  // MARK: Going on

  /// What the recovered store acknowledges survives the next loss of power.
  private func goOn(
    _ disk: SimulatedFileSystem, _ opened: Opened, _ timeline: Timeline, _ clock: SimulatedClock,
    _ checks: inout Checks
  ) throws(Violation) {
    let store = opened.machine.store
    let body = Array("on".utf8)
    let made = opened.machine.answer { store.createQueue("on", QueueSettingsChange(), $0) }
    guard case .success(let queue)? = made else {
      throw Violation(.recoveredGoesOn, "no queue can be made: \(String(describing: made))")
    }
    let sent = opened.machine.answer {
      store.send([SendEntry(MessageContent(body: body))], to: queue.id, $0)
    }
    guard case .success? = sent else {
      throw Violation(.recoveredGoesOn, "nothing can be sent: \(String(describing: sent))")
    }
    guard setup.durability == .synced else { return }
    var oldest = OldestChooser()
    disk.crash(choosing: &oldest)
    let machine = try open(disk, clock, seed: 300, &checks)
    let id = machine.store.lookup("on")?.id
    let answer = id.flatMap { id in
      machine.answer { _ = machine.store.receive(ReceiveRequest(wait: .zero), from: id, $0) }
    }
    var bodies: [[UInt8]] = []
    if case .success(let messages)? = answer { bodies = messages.map(\.content.body) }
    try checks.check(
      .recoveredGoesOn, bodies == [body], "what was acknowledged after the recovery is gone")
  }
}
