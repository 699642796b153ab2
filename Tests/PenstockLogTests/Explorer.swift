// SPDX-License-Identifier: Apache-2.0
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

/// One thing that the owner of a log does.
enum Step: Sendable {
  /// Appends a record with a payload of so many bytes to the open batch.
  case append(Int, synced: Bool)
  /// Writes what was appended; syncs if something of it asks for that.
  case commit
  case heartbeat
  case prepare
  /// Closes cleanly and opens again.
  case reopen
  /// The process dies and a new one opens the log.
  case kill
}

/// What a log was told and what it promised.
struct Promise {
  /// The payload last appended under each LSN.
  var submitted: [UInt64: [UInt8]] = [:]
  /// Everything up to here was synced, or replayed by an opening that returned.
  var synced: UInt64 = 0
  /// Everything up to here was written: survives the process.
  var written: UInt64 = 0
  /// The highest LSN of which anybody may know, in any run, on disk or not: its write returned.
  var givenOut: UInt64 = 0
}

/// Runs a history and keeps account of the promises made.
final class Owner {
  let disk: SimulatedFileSystem
  private(set) var promise: Promise
  private var session: Session?
  private var number: Int
  private var seed: UInt64 = 100
  /// Called before every call that changes something.
  private let beforeCall: (Owner) -> Void

  init(
    _ disk: SimulatedFileSystem, promise: Promise = Promise(),
    beforeCall: @escaping (Owner) -> Void = { _ in }
  ) {
    self.disk = disk
    self.promise = promise
    self.beforeCall = beforeCall
    number = 1000 * promise.submitted.count
  }

  func run(_ steps: [Step]) throws {
    try start()
    for step in steps { try take(step) }
  }

  private func start() throws {
    seed += 1
    let watched = WatchedFileSystem(disk) { [unowned self] in beforeCall(self) }
    let opened = try open(watched, seed: seed)
    check(opened.found, against: promise, atLeast: promise.written, "opening of a process")
    promise.written = opened.found.lastLSN
    promise.synced = opened.found.lastLSN
    for lsn in promise.submitted.keys where lsn > promise.synced { promise.submitted[lsn] = nil }
    session = opened
  }

  private func take(_ step: Step) throws {
    guard var opened = session else { return }
    switch step {
    case .append(let size, let synced):
      number += 1
      let payload = payload(number, size: size)
      if opened.tail.preparedAhead == 0, promise.submitted.isEmpty { try opened.prepare() }
      let lsn = try opened.append(payload, synced: synced).lsn
      if lsn.value <= promise.givenOut {
        Issue.record("LSN \(lsn) is given out again; up to \(promise.givenOut) all were")
      }
      promise.submitted[lsn.value] = payload
    case .commit:
      try opened.commit()
      promise.written = opened.tail.writtenLSN.value
      promise.givenOut = max(promise.givenOut, promise.written)
      promise.synced = opened.tail.durableLSN.value
    case .heartbeat: try opened.heartbeat()
    case .prepare: try opened.prepare()
    case .reopen:
      try opened.log.seal()
      promise.synced = promise.written
      opened.log.close()
      return try start()
    case .kill:
      disk.kill()
      return try start()
    }
    session = opened
  }
}

/// Recovered must hold everything that was submitted up to `least`, and nothing that was not
/// submitted, in the order of LSNs.
func check(_ found: Found, against promise: Promise, atLeast least: UInt64, _ story: String) {
  let lost = promise.submitted.keys.filter { $0 <= least && found.payloads[$0] == nil }
  if !lost.isEmpty { Issue.record("\(story): LSN \(lost.sorted()) are lost") }
  if least > 0, found.end == .created { Issue.record("\(story): the store was made anew") }
  if !found.isAscending { Issue.record("\(story): LSNs do not ascend") }
  for (lsn, payload) in found.payloads where promise.submitted[lsn] != payload {
    Issue.record("\(story): LSN \(lsn) is not what was appended")
  }
}

/// Loses power at every call of a history, in every way or in many ways, and checks what comes
/// back.
///
/// Disks that look alike and carry the same promise are checked once.
final class Explorer {
  private let steps: [Step]
  private let disk: SimulatedFileSystem
  private let promise: Promise
  /// Up to so many outcomes of a crash are all tried.
  var exhaustive = 64
  /// If there are more, so many by seed besides.
  var seeds = 24
  var garbling = false
  /// Whether power is lost at every call of the opening after the loss, too.
  var crashesRecovery = false
  /// Points in time at which power was lost.
  private(set) var points = 0
  /// Losses tried, and how many different disks they left.
  private(set) var losses = 0
  private(set) var disks = 0
  private var seen: Set<String> = []

  /// The history begins on `disk`, where an owner with that promise left off.
  init(
    _ steps: [Step], on disk: SimulatedFileSystem = SimulatedFileSystem(),
    promise: Promise = Promise()
  ) {
    self.steps = steps
    self.disk = disk
    self.promise = promise
  }

  func run() throws {
    let owner = Owner(disk, promise: promise) { owner in
      self.points += 1
      self.lose(owner.disk, owner.promise, "call \(self.points)")
    }
    try owner.run(steps)
    points += 1
    lose(owner.disk, owner.promise, "end")
  }

  /// Loses power on copies of `disk` and checks each outcome; before, ends the process only.
  private func lose(_ disk: SimulatedFileSystem, _ promise: Promise, _ story: String) {
    goOn(disk.copy(), atLeast: promise.written, promise, "\(story), process killed")
    forEachLoss(disk) { after, name in
      let story = "\(story), \(name)"
      guard checkOutcome(after, promise, story), crashesRecovery else { return }
      var point = 0
      let copy = after.opened()
      let watched = WatchedFileSystem(copy) {
        point += 1
        self.points += 1
        self.forEachLoss(copy) { twice, name in
          _ = self.checkOutcome(twice, promise, "\(story), call \(point) of recovery, \(name)")
        }
      }
      _ = refusal(watched)
    }
  }

  private func forEachLoss(
    _ disk: SimulatedFileSystem, _ body: (SimulatedFileSystem, String) -> Void
  ) {
    var chooser = ExhaustiveChooser()
    while chooser.next() {
      losses += 1
      body(disk.crashed(choosing: &chooser, garbling: garbling), "outcome \(chooser.rounds)")
      if chooser.rounds == exhaustive { break }
    }
    guard chooser.rounds == exhaustive else { return }
    for seed in 0..<UInt64(seeds) {
      losses += 1
      var chooser = SeededChooser(seed: seed)
      body(disk.crashed(choosing: &chooser, garbling: garbling), "seed \(seed)")
    }
  }

  /// False when the same was checked before.
  private func checkOutcome(
    _ disk: SimulatedFileSystem, _ promise: Promise, _ story: String
  ) -> Bool {
    guard
      seen.insert("\(promise.synced) \(promise.givenOut) \(fingerprint(disk))").inserted
    else { return false }
    disks += 1
    let copy = disk.opened()
    do {
      let first = try open(copy, seed: 50)
      check(first.found, against: promise, atLeast: promise.synced, story)
      let files = try snapshot(copy)
      for (name, bytes) in files where name.hasSuffix(StoreFileName.preparedSuffix) {
        let behindHeader = bytes.withRaw { $0.extracting(4096..<bytes.count).isZero }
        if !behindHeader { Issue.record("\(story): \(name) is taken for prepared") }
      }
      var oldest = OldestChooser()
      copy.crash(choosing: &oldest)
      let second = try open(copy, seed: 51)
      if second.found.payloads != first.found.payloads {
        Issue.record("\(story): a second opening finds other records")
      }
      if second.found.end != .sealed { Issue.record("\(story): recovered, but not sealed") }
      let later = try snapshot(copy)
      for name in Set(files.keys).union(later.keys) where files[name] != later[name] {
        Issue.record("\(story): a second opening changes \(name)")
      }
      goOn(copy, atLeast: first.found.lastLSN, promise, story)
    } catch { Issue.record("\(story): refused: \(error)") }
    return true
  }

  /// A log that was recovered is a log like any other: what it promises from now on is kept.
  private func goOn(
    _ disk: SimulatedFileSystem, atLeast least: UInt64, _ promise: Promise, _ story: String
  ) {
    var promise = promise
    promise.written = least
    disk.kill()
    layPrepared(disk)
    let owner = Owner(disk, promise: promise)
    do {
      try owner.run([.append(30, synced: true), .commit])
      var oldest = OldestChooser()
      disk.crash(choosing: &oldest)
      let last = try open(disk, seed: 60)
      check(last.found, against: owner.promise, atLeast: owner.promise.synced, story)
    } catch { Issue.record("\(story): does not go on: \(error)") }
  }
}

/// Puts a prepared segment there, as `prepareSegment` would, if the directory exists.
func layPrepared(_ disk: SimulatedFileSystem) {
  let zeros = [UInt8](repeating: 0, count: segmentSize)
  disk.replace(path("ffffffffffffffff" + StoreFileName.preparedSuffix), with: zeros)
}

/// What tells one disk from another.
func fingerprint(_ disk: SimulatedFileSystem) -> String {
  guard let names = try? disk.list(directory) else { return "no directory" }
  return names.map { name in
    let bytes = disk.contents(of: path(name)) ?? []
    return "\(name) \(bytes.count) \(bytes.withRaw { CRC32C.of($0) })"
  }.joined(separator: "\n")
}

extension SimulatedFileSystem {
  /// A copy that a new process can open.
  func opened() -> SimulatedFileSystem {
    let other = copy()
    other.kill()
    return other
  }
}

/// Nothing that was pending survives.
struct OldestChooser: Chooser {
  mutating func choose(_ count: Int) -> Int { 0 }
}
