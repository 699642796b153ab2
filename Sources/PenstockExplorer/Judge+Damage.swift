// SPDX-License-Identifier: Apache-2.0
internal import Penstock
internal import PenstockSystem
internal import PenstockTesting

extension Judge {
  /// Judges a store of which bodies of messages are damaged, and nothing else: it opens; what it
  /// delivers is right; what is missing was set aside, with its bytes in a file, and stays so.
  ///
  /// - Parameter isBusy: other messages come and go first, so that the damage is met by compaction.
  func judgeSpoiled(
    _ disk: SimulatedFileSystem, _ timeline: Timeline, _ clock: SimulatedClock, _ isBusy: Bool,
    _ checks: inout Checks
  ) throws(Violation) {
    let disk = disk.copy()
    let machine = try open(disk, clock, seed: 700, &checks)
    let store = machine.store
    if isBusy { try keepBusy(machine) }
    let opened = store.now.milliseconds
    let times = times(timeline, least: timeline.last, from: opened)
    let expected = predict(timeline.present, times, at: opened, timeline)
    let there = Dictionary(
      uniqueKeysWithValues: expected.sightings.map { ($0.number, $0) })
    var missing = Set(there.keys)
    var held: Set<Int> = []
    for time in times {
      machine.clock.advance(by: .milliseconds(max(0, time - store.now.milliseconds)))
      guard machine.settle() else { throw Violation(.neverStuck, "a damaged store has no rest") }
      for (number, id) in expected.queues.sorted(by: { $0.key < $1.key }) {
        for sighting in try drain(id, number, machine, timeline, time, &held) {
          try checks.check(
            .damagedIsSetAside,
            there[sighting.number] == sighting && missing.remove(sighting.number) != nil,
            "message \(sighting.number) was delivered as it should not be")
        }
      }
    }
    let setAside = setAside(store, expected)
    let lost = Dictionary(grouping: missing, by: { there[$0]?.queue ?? 0 }).mapValues(\.count)
    for (queue, count) in lost where !held.contains(queue) {
      try checks.check(
        .damagedIsSetAside, setAside[queue] == count,
        "\(count) messages of queue \(queue) are gone, and \(setAside[queue] ?? 0) were set aside")
    }
    let total = setAside.values.reduce(0, +)
    let evidence = (try? disk.list(Setup.directory))?.filter { $0.contains(".damaged-") } ?? []
    try checks.check(
      .damagedIsSetAside, total <= missing.count && evidence.count >= total,
      "\(total) messages were set aside, \(missing.count) are gone, \(evidence) was kept")
    if total > 0 { checks.note(.setAside) }
    if !held.isEmpty { checks.note(.heldUp) }
    var oldest = OldestChooser()
    disk.crash(choosing: &oldest)
    let again = try open(disk, clock, seed: 701, &checks)
    let broken = again.store.brokenInvariant
    try checks.check(.stateFitsTogether, broken == nil, broken ?? "")
    let later = self.setAside(again.store, expected)
    try checks.check(
      .damagedIsSetAside, setup.durability != .synced || later == setAside,
      "\(setAside) were set aside, and after a loss of power \(later)")
  }

  private func setAside(_ store: Store, _ sight: Sight) -> [Int: Int] {
    sight.queues.mapValues { Int(clamping: store.lookup($0)?.setAside ?? 0) }
  }

  /// Fills segments with what is deleted at once, so that older ones are compacted.
  private func keepBusy(_ machine: Machine) throws(Violation) {
    let store = machine.store
    let made = machine.answer { store.createQueue("busy", QueueSettingsChange(), $0) }
    guard case .success(let queue)? = made else {
      throw Violation(.damagedIsSetAside, "no queue can be made: \(String(describing: made))")
    }
    let body = [UInt8](repeating: 7, count: 15_000)
    for _ in 0..<14 {
      _ = machine.answer { store.send([SendEntry(MessageContent(body: body))], to: queue.id, $0) }
      let received = machine.answer {
        _ = store.receive(ReceiveRequest(wait: .zero), from: queue.id, $0)
      }
      guard case .success(let messages)? = received, !messages.isEmpty else {
        throw Violation(.damagedIsSetAside, "nothing comes: \(String(describing: received))")
      }
      _ = machine.answer { store.delete(messages.map(\.handle), from: queue.id, $0) }
    }
  }

  /// Receives until there is nothing more; notes in `held` when a queue cannot go on.
  private func drain(
    _ id: QueueID, _ queue: Int, _ machine: Machine, _ timeline: Timeline, _ time: Int64,
    _ held: inout Set<Int>
  ) throws(Violation) -> [Sighting] {
    var all: [Sighting] = []
    for _ in 0..<1000 {
      let request = ReceiveRequest(
        maximumMessages: 1000, wait: .zero, visibilityTimeout: .milliseconds(Self.hiding))
      let answer = machine.answer { _ = machine.store.receive(request, from: id, $0) }
      switch answer {
      case .success(let messages):
        if messages.isEmpty { return all }
        all += try sightings(messages, queue, timeline, time)
      case .failure(let error) where error.code == .unreadableMessage: continue
      case .failure(let error) where error.code == .corrupted:
        held.insert(queue)
        return all
      default:
        throw Violation(
          .damagedIsSetAside, "a receive beside damage: \(String(describing: answer))")
      }
    }
    throw Violation(.neverStuck, "receives fail without end")
  }
}
