// SPDX-License-Identifier: Apache-2.0
internal import Penstock
internal import PenstockSystem
internal import PenstockTesting

// Saying what is wrong.

extension Judge {
  /// Checks one promise after the other on what was seen.
  ///
  /// - Parameter predicted: what each allowed moment would have shown.
  func diagnose(
    _ sight: Sight, _ predicted: [Sight], _ timeline: Timeline, least: Int, at opened: Int64,
    _ checks: inout Checks
  ) throws(Violation) {
    let seen = Dictionary(grouping: sight.sightings, by: \.number)
    let allowed = timeline.moments[least...].map { messages(of: $0, at: opened) }
    var possible: [UInt64: [Oracle.Message]] = [:]
    for moment in allowed {
      for (number, message) in moment { possible[number, default: []].append(message) }
    }
    // What all allowed moments would have shown.
    let shown = predicted.map { Set($0.sightings.map(\.number)) }
    let kept = shown.dropFirst().reduce(shown[0]) { $0.intersection($1) }
    try diagnoseMoves(sight, predicted, kept, timeline, &checks)
    let twice = seen.first { $0.value.count > 1 }?.key
    try checks.check(.recoveredWasSubmitted, twice == nil, "message \(twice ?? 0) is there twice")
    try diagnoseTransactions(seen.keys, shown, timeline, &checks)
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
    // When allowed moments would have shown each message: in a FIFO queue those before it count.
    var times: [UInt64: Set<Int64>] = [:]
    for sighting in predicted.flatMap(\.sightings) {
      times[sighting.number, default: []].insert(sighting.time)
    }
    for sighting in sight.sightings where sight.settings[sighting.queue]?.isFIFO ?? false {
      let models = possible[sighting.number, default: []]
      let first = times[sighting.number, default: []].min() ?? sighting.time
      try checks.check(
        .groupRunsExclude,
        sighting.time >= first || models.allSatisfy { $0.hiddenUntil ?? 0 > sighting.time },
        "message \(sighting.number) comes at \(sighting.time), its group lets it at \(first)")
    }
    try diagnoseOrder(sight, timeline, &checks)
    for sighting in sight.sightings {
      let models = possible[sighting.number, default: []]
      let ends = models.map { max($0.hiddenUntil ?? opened, opened) }
      let wasReceived = models.allSatisfy { $0.receiveCount > 0 }
      let earliest = ends.min() ?? opened
      try checks.check(
        .leasesExclude, !wasReceived || sighting.time >= earliest,
        "message \(sighting.number) is visible at \(sighting.time), leased until \(earliest)")
      let predicted = times[sighting.number, default: []]
      try checks.check(
        .timersHold, ends.contains(sighting.time) || predicted.contains(sighting.time),
        "message \(sighting.number) shows at \(sighting.time), not at \(ends)")
      let count = models.map(\.receiveCount).min() ?? 0
      try checks.check(
        .receiveCountsHold, sighting.receiveCount > count,
        "message \(sighting.number): receive \(sighting.receiveCount), though \(count) were told")
    }
    for (queue, repeats) in sight.repeats
    where !timeline.repetitions[queue, default: []].isEmpty {
      try checks.check(
        .repetitionsAreKnown, predicted.contains { $0.repeats[queue] == repeats },
        "queue \(queue) remembers \(repeats), not \(predicted[0].repeats[queue] ?? [:])")
    }
  }

  /// Messages that are in the dead letters by one of the moments, or came there in looking.
  private func diagnoseMoves(
    _ sight: Sight, _ predicted: [Sight], _ kept: Set<UInt64>, _ timeline: Timeline,
    _ checks: inout Checks
  ) throws(Violation) {
    let moving = Set(
      predicted.flatMap(\.sightings).filter { timeline.sent[$0.number]?.queue != $0.queue }
        .map(\.number))
    for number in moving.sorted() {
      let queues = sight.sightings.filter { $0.number == number }.map(\.queue)
      try checks.check(
        .movesAreWhole, queues.count < 2 && !(queues.isEmpty && kept.contains(number)),
        "message \(number) went to the dead letters, and is in queues \(queues)")
    }
  }

  private func diagnoseTransactions(
    _ seen: some Collection<UInt64>, _ shown: [Set<UInt64>], _ timeline: Timeline,
    _ checks: inout Checks
  ) throws(Violation) {
    for transaction in timeline.committed {
      let (deleted, sent) = (transaction.deleted, transaction.sent)
      let isWhole = shown.contains {
        $0.contains(deleted) == seen.contains(deleted) && $0.contains(sent) == seen.contains(sent)
      }
      try checks.check(
        .transactionsAreWhole, isWhole,
        "a transaction deletes \(deleted) and sends \(sent): there is "
          + "\([deleted, sent].filter(seen.contains))")
    }
  }

  /// What was moved comes in the order of the moves, which the moments know.
  private func diagnoseOrder(
    _ sight: Sight, _ timeline: Timeline, _ checks: inout Checks
  ) throws(Violation) {
    let sightings = sight.sightings.filter {
      timeline.sent[$0.number]?.queue == $0.queue && timeline.sent[$0.number]?.priority == 0
    }
    for (number, queue) in Dictionary(grouping: sightings, by: \.queue) {
      if sight.settings[number]?.isFIFO ?? false {
        let lines = Dictionary(grouping: queue.map(\.number)) { timeline.sent[$0]?.line ?? 0 }
        for (line, numbers) in lines {
          try checks.check(
            .groupOrderIsKept, numbers == numbers.sorted(), "order \(numbers) in group \(line)")
        }
        continue
      }
      let lines = Dictionary(grouping: queue) {
        [$0.time, Int64(timeline.sent[$0.number]?.line ?? 0)]
      }
      for part in lines.values {
        let numbers = part.map(\.number)
        try checks.check(.orderIsKept, numbers == numbers.sorted(), "order \(numbers)")
      }
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
}
