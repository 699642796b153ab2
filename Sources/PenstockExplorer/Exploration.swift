// SPDX-License-Identifier: Apache-2.0
internal import Penstock
internal import PenstockSystem
internal import PenstockTesting

/// What an exploration did.
package struct Tally: Sendable {
  package var histories = 0
  /// Calls to the file system before which power was lost, or the process killed.
  package var points = 0
  /// Legal outcomes of those, enumerated.
  package var states = 0
  /// Outcomes that left a disk, with promises, that was not judged before in its history.
  package var distinct = 0
  /// Points with more outcomes than were enumerated, and how many of theirs were tried by seed.
  package var capped = 0
  package var sampled = 0
  /// Disks damaged on purpose; those refused; those that showed everything all the same.
  package var damages = 0
  package var refused = 0
  package var harmless = 0
  /// Those with damage that a store is to live with, and did.
  package var survived = 0
  package var checks = Checks()
  /// The sum of the traces' hashes: it does not depend on which thread ran what.
  package var hash: UInt64 = 0

  package init() {}

  package mutating func add(_ other: Tally) {
    histories += other.histories
    points += other.points
    states += other.states
    distinct += other.distinct
    capped += other.capped
    sampled += other.sampled
    damages += other.damages
    refused += other.refused
    harmless += other.harmless
    survived += other.survived
    checks.add(other.checks)
    hash &+= other.hash
  }
}

/// Runs one history and loses power before every call to the file system of its last operation,
/// with every outcome that the disk allows.
///
/// Calls before the last operation belong to the shorter history that ends there.
struct Exploration {
  let setup: Setup
  /// More outcomes than this of one point are not all tried; such points are counted.
  var limit = 4096
  /// Of such a point, so many more outcomes by seed.
  private var seeds: UInt64 { UInt64(min(64, limit)) }

  /// - Parameter lastSteps: how many steps belong to the last operation.
  func explore(_ history: [Step], lastSteps: Int, _ tally: inout Tally) throws(Violation) {
    let world = World(setup)
    let looker = Looker(self, tally)
    world.onCall = { world throws(Violation) in
      if world.stepsLeft < lastSteps { try looker.look(world) }
    }
    defer { tally = looker.tally }
    try world.run(history)
    looker.tally.histories += 1
    try looker.look(world)
    if setup.damages {
      // The last commit has its witness when the log was idle for a while.
      world.onCall = nil
      try world.run([Step(.settle), Step(.pass, 200), Step(.settle)])
      try Damage(setup, looker.judge, world).tryAll(&looker.tally)
    }
    looker.tally.checks.add(world.checks)
    looker.tally.hash &+= world.trace.value
  }

  private final class Looker: @unchecked Sendable {  // an exploration has one thread
    let exploration: Exploration
    let judge: Judge
    var tally: Tally
    private var seen: Set<UInt64> = []
    /// What went wrong in the middle of a recovery, and how many calls that has made.
    private var inRecovery: (calls: Int, violation: Violation?) = (0, nil)

    init(_ exploration: Exploration, _ tally: Tally) {
      self.exploration = exploration
      self.tally = tally
      judge = Judge(exploration.setup)
    }

    func look(_ world: World) throws(Violation) {
      tally.points += 1
      tally.states += 1
      let story = "call \(world.calls)"
      let killed = world.disk.copy()
      killed.kill()
      try judgeOnce(killed, world, least: world.timeline.written, "\(story), killed")
      let again = exploration.setup.losesRecovery
      if again { try loseRecovery(killed, world, "\(story), killed") }
      try lose(world.disk, world, story, again: again)
    }

    /// Every outcome of a loss of power at this moment.
    private func lose(
      _ disk: SimulatedFileSystem, _ world: World, _ story: String, again: Bool
    ) throws(Violation) {
      var chooser = ExhaustiveChooser()
      while chooser.next() {
        if chooser.rounds > exploration.limit {
          tally.capped += 1
          for seed in 0..<exploration.seeds {
            var chooser = SeededChooser(seed: seed)
            tally.sampled += 1
            try lose(disk, choosing: &chooser, world, "\(story), seed \(seed)", again)
          }
          return
        }
        tally.states += 1
        try lose(disk, choosing: &chooser, world, "\(story), outcome \(chooser.rounds)", again)
      }
    }

    private func lose(
      _ disk: SimulatedFileSystem, choosing chooser: inout some Chooser, _ world: World,
      _ story: String, _ again: Bool
    ) throws(Violation) {
      let left = disk.crashed(choosing: &chooser, garbling: exploration.setup.isGarbling)
      let isNew = try judgeOnce(left, world, least: world.timeline.least, story)
      if isNew, again { try loseRecovery(left, world, story) }
    }

    @discardableResult
    private func judgeOnce(
      _ disk: SimulatedFileSystem, _ world: World, least: Int, _ story: String
    ) throws(Violation) -> Bool {
      var key = TraceHash()
      key.add(UInt64(least) << 32 | UInt64(world.timeline.last))
      key.add(UInt64(bitPattern: world.clock.wallMilliseconds()))
      key.add(disk)
      guard seen.insert(key.value).inserted else { return false }
      tally.distinct += 1
      _ = try judge.judge(disk, world.timeline, least: least, world.clock, &tally.checks, story)
      return true
    }

    private func loseRecovery(
      _ disk: SimulatedFileSystem, _ world: World, _ story: String
    ) throws(Violation) {
      let copy = disk.copy()
      copy.kill()
      inRecovery = (0, nil)
      let process = SimulatedProcess(copy) { [unowned self] _, call in
        inRecovery.calls += 1
        tally.points += 1
        do throws(Violation) {
          if inRecovery.violation == nil {
            try lose(copy, world, "\(story), call \(inRecovery.calls) of recovery", again: false)
          }
        } catch { inRecovery.violation = error }
        return exploration.setup.canary?.handling(of: call) ?? .asAsked
      }
      do throws(PenstockError) {
        _ = try Machine(exploration.setup, process, world.clock, StableRandom(seed: 400))
      } catch { throw Violation(.legalCrashIsAccepted, "\(story): refused: \(error)") }
      if let violation = inRecovery.violation { throw violation }
    }
  }
}

extension TraceHash {
  /// Names and contents of all files of the store.
  mutating func add(_ disk: SimulatedFileSystem) {
    // Power may have taken the directory itself: then there is nothing to add.
    guard let names = try? disk.list(Setup.directory) else { return }
    for name in names {
      add(name)
      guard let bytes = disk.contents(of: Setup.directory + "/" + name) else { continue }
      add(UInt64(bytes.count) << 32 | UInt64(bytes.withRaw { CRC32C.of($0) }))
    }
  }
}
