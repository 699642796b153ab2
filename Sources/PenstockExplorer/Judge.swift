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
  }

  /// What a store showed of itself.
  struct Sight {
    var names: [String] = []
    var queues: [Int: QueueID] = [:]
    var settings: [Int: QueueSettings] = [:]
    var counts: [Int: QueueCounts] = [:]
    /// By so much the store's counts may be too high.
    var overdue: [Int: Int] = [:]
    var sightings: [Sighting] = []

    /// Whether a store that showed `seen` may be the one that this describes.
    func fits(_ seen: Sight) -> Bool {
      names == seen.names && queues == seen.queues && settings == seen.settings
        && sightings == seen.sightings && counts.count == seen.counts.count
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
    let fitting = timeline.moments[least...].filter {
      predict($0, sight.times, at: opened).fits(sight.sight)
    }
    // Two that look alike now may not later: the log tells which one it is.
    let lsn = machine.machine.store.recovery.lastLSN
    if var moment = fitting.last(where: { $0.lsn <= lsn }) ?? fitting.last {
      try checks.check(.recoveredIsOnePast, true, "")
      try diagnose(sight, timeline, least: least, at: opened, &checks)
      try goOn(disk, machine, timeline, clock, &checks)
      moment.lsn = lsn
      return moment
    }
    try diagnose(sight, timeline, least: least, at: opened, &checks)
    let expected = predict(timeline.moments[least], sight.times, at: opened)
    throw Violation(
      .recoveredIsOnePast,
      "what came back is no moment from \(least) to \(timeline.last): \(describe(sight.sight)), "
        + "moment \(least) has \(describe(expected))")
  }

  private func describe(_ sight: Sight) -> String {
    let messages = sight.sightings.map {
      "\($0.number) x\($0.receiveCount) at \($0.time % 1_000_000) sent \($0.sentAt % 1_000_000) "
        + "first received \($0.firstReceivedAt % 1_000_000)"
    }
    let counts = sight.counts.sorted { $0.key < $1.key }.map { "\($0.value)" }
    return "\(sight.names) \(counts) \(messages.joined(separator: ", "))"
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
        while store.lookup(id)?.counts.visible ?? 0 > 0 {
          let more = try receive(from: id, number, machine, timeline, time)
          if more.isEmpty { break }
          sight.sightings += more
        }
      }
    }
    return (sight, times)
  }

  private func receive(
    from id: QueueID, _ queue: Int, _ machine: Machine, _ timeline: Timeline, _ time: Int64
  ) throws(Violation) -> [Sighting] {
    let request = ReceiveRequest(
      maximumMessages: 1000, wait: .zero, visibilityTimeout: .milliseconds(Self.hiding))
    let answer = machine.answer { _ = machine.store.receive(request, from: id, $0) }
    guard case .success(let messages)? = answer else {
      throw Violation(
        .recoveredWasSubmitted, "a receive after the recovery: \(String(describing: answer))")
    }
    return try sightings(messages, queue, timeline, time)
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
          firstReceivedAt: message.firstReceivedAt.milliseconds))
    }
    return sightings
  }

  /// What a moment would have shown.
  func predict(_ moment: Timeline.Moment, _ times: [Int64], at opened: Int64) -> Sight {
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
        for message in oracle.receive(
          from: id, limit: 1000, timeout: .milliseconds(Self.hiding))
        {
          sight.sightings.append(
            Sighting(
              time: time, queue: number, number: message.number,
              receiveCount: message.receiveCount, sentAt: message.sentAt,
              firstReceivedAt: message.firstReceivedAt ?? 0))
        }
      }
    }
    return sight
  }

  // MARK: Saying what is wrong

  /// Checks one promise after the other on what was seen.
  private func diagnose(
    _ looked: (sight: Sight, times: [Int64]), _ timeline: Timeline, least: Int, at opened: Int64,
    _ checks: inout Checks
  ) throws(Violation) {
    let sight = looked.sight
    let seen = Dictionary(grouping: sight.sightings, by: \.number)
    let twice = seen.first { $0.value.count > 1 }?.key
    try checks.check(.recoveredWasSubmitted, twice == nil, "message \(twice ?? 0) is there twice")
    let allowed = timeline.moments[least...].map { messages(of: $0, at: opened) }
    var possible: [UInt64: [Oracle.Message]] = [:]
    for moment in allowed {
      for (number, message) in moment { possible[number, default: []].append(message) }
    }
    // What each allowed moment would have shown, and what all of them would.
    let shown = timeline.moments[least...].map {
      Set(predict($0, looked.times, at: opened).sightings.map(\.number))
    }
    let kept = shown.dropFirst().reduce(shown[0]) { $0.intersection($1) }
    let lost = kept.subtracting(seen.keys).sorted()
    let toldOf = lost.filter { timeline.sent[$0]?.moment ?? 0 > timeline.acknowledged }
    try checks.check(
      .deliveredIsRecovered, toldOf.isEmpty || toldOf.count < lost.count,
      "messages \(toldOf) were delivered and are gone")
    try checks.check(
      .acknowledgedIsRecovered, lost.isEmpty,
      "messages \(lost) were acknowledged and are gone; there is \(describe(sight))")
    let extra = seen.keys.filter { possible[$0] == nil }.sorted()
    try checks.check(
      .goneStaysGone, extra.isEmpty, "messages \(extra) were gone for good and are back")
    for (_, group) in Dictionary(grouping: seen.keys, by: { timeline.sent[$0]?.group ?? 0 }) {
      let whole = timeline.sent.filter { $0.value.group == timeline.sent[group[0]]?.group }.keys
      let fits = shown.contains { shown in
        whole.allSatisfy { shown.contains($0) == group.contains($0) }
      }
      try checks.check(
        .groupsAreWhole, fits || group.count == whole.count,
        "only messages \(group.sorted()) of batch \(whole.sorted()) are there")
    }
    for (_, queue) in Dictionary(grouping: sight.sightings, by: \.queue) {
      for (_, part) in Dictionary(grouping: queue, by: \.time) {
        let numbers = part.map(\.number)
        try checks.check(.orderIsKept, numbers == numbers.sorted(), "order \(numbers)")
      }
    }
    for sighting in sight.sightings {
      let models = possible[sighting.number, default: []]
      let ends = models.map { max($0.hiddenUntil ?? opened, opened) }
      let wasReceived = models.allSatisfy { $0.receiveCount > 0 }
      let earliest = ends.min() ?? opened
      try checks.check(
        .leasesExclude, !wasReceived || sighting.time >= earliest,
        "message \(sighting.number) is visible at \(sighting.time), leased until \(earliest)")
      try checks.check(
        .timersHold, ends.contains(sighting.time),
        "message \(sighting.number) shows at \(sighting.time), not at \(ends)")
      let count = models.map(\.receiveCount).min() ?? 0
      try checks.check(
        .receiveCountsHold, sighting.receiveCount > count,
        "message \(sighting.number): receive \(sighting.receiveCount), though \(count) were told")
    }
  }

  private func messages(
    of moment: Timeline.Moment, at time: Int64
  ) -> [UInt64: Oracle.Message] {
    var oracle = moment.oracle
    oracle.advance(to: time)
    var all: [UInt64: Oracle.Message] = [:]
    for id in moment.queues.values {
      for message in oracle.messages(id) { all[message.number] = message }
    }
    return all
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
