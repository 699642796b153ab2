// SPDX-License-Identifier: Apache-2.0
internal import Penstock
internal import PenstockTesting

/// Damages the disk that a process left, one sector of one file after the other, and holds against
/// each part of it what damage there may do.
struct Damage {
  /// What a part of a file is to a start.
  private enum Part {
    /// What was acknowledged cannot be told without it: all is there, or the start is refused.
    case vital
    /// There is another like it, or it can be made again: damage changes nothing that is shown.
    case spare
    /// Bodies of messages, which are read when they are delivered or moved: the store opens, and
    /// what is damaged is set aside.
    case bodies
  }

  let setup: Setup
  let judge: Judge
  let world: World
  private let random = StableRandom(seed: 500)

  init(_ setup: Setup, _ judge: Judge, _ world: World) {
    self.setup = setup
    self.judge = judge.ofDamaged
    self.world = world
  }

  func tryAll(_ tally: inout Tally) throws(Violation) {
    let disk = world.disk.copy()
    disk.kill()
    guard let names = try? disk.list(Setup.directory) else {
      throw Violation(.damageIsRefused, "there is no store to damage")
    }
    let checkpoint = try checkpoint(disk)
    for name in names {
      let path = Setup.directory + "/" + name
      guard let whole = part(name, names, checkpoint), let bytes = disk.contents(of: path) else {
        continue
      }
      for sector in stride(from: 0, to: bytes.count, by: 4096) {
        let range = sector..<min(sector + 4096, bytes.count)
        guard bytes[range].contains(where: { $0 != 0 }) else { continue }
        // Without its header a segment is none.
        let part = whole == .bodies && sector == 0 ? .vital : whole
        let used = bytes[range].lastIndex { $0 != 0 } ?? sector
        var spoiled = bytes
        spoiled[sector + random.below(used - sector + 1)] ^= 1 << UInt8(random.below(8))
        try attempt(disk, path, spoiled, part, "a bit of \(name) at \(sector) flipped", &tally)
        spoiled = bytes
        spoiled.replaceSubrange(range, with: repeatElement(0, count: range.count))
        try attempt(disk, path, spoiled, part, "\(name) zeroed at \(sector)", &tally)
        try attempt(disk, path, Array(bytes[..<sector]), part, "\(name) cut at \(sector)", &tally)
      }
      let longer = bytes + [UInt8](repeating: 0, count: 4096)
      try attempt(disk, path, longer, whole, "\(name) with a sector more", &tally)
      // Nothing may be missing, but what is spare.
      try attempt(disk, path, nil, whole == .spare ? .spare : .vital, "\(name) removed", &tally)
    }
  }

  /// LSN of the checkpoint that a start goes on from; nil when it replays everything.
  private func checkpoint(_ disk: SimulatedFileSystem) throws(Violation) -> UInt64? {
    do throws(PenstockError) {
      return try machine(disk.copy()).store.recovery.checkpointLSN
    } catch { throw Violation(.legalCrashIsAccepted, "refused before it was damaged: \(error)") }
  }

  private func machine(_ disk: SimulatedFileSystem) throws(PenstockError) -> Machine {
    try Machine(setup, disk, world.clock, StableRandom(seed: 600))
  }

  private func part(_ name: String, _ names: [String], _ checkpoint: UInt64?) -> Part? {
    if name == "STORE" || name == "HEAD" { return .vital }
    if name.hasSuffix(".checkpoint") || name.hasSuffix(".index") { return .spare }
    guard name.hasSuffix(".seg") else { return nil }
    // The segment that holds the checkpoint's record is replayed.
    let next = names.filter { $0.hasSuffix(".seg") && $0 > name }.min()
    guard let checkpoint, let first = next.flatMap({ UInt64($0.dropLast(4), radix: 16) }) else {
      return .vital
    }
    return first <= checkpoint ? .bodies : .vital
  }

  /// - Parameter bytes: what the file has now; nil when it is gone.
  private func attempt(
    _ disk: SimulatedFileSystem, _ path: String, _ bytes: [UInt8]?, _ part: Part, _ story: String,
    _ tally: inout Tally
  ) throws(Violation) {
    let damaged = disk.copy()
    if let bytes { damaged.replace(path, with: bytes) } else { damaged.erase(path) }
    tally.damages += 1
    switch part {
    case .vital: try refusedOrHarmless(damaged, story, &tally)
    case .spare: try survived(damaged, path, isThere: bytes != nil, story, &tally)
    case .bodies:
      try setAside(damaged, isBusy: false, story, &tally)
      try setAside(damaged, isBusy: true, "\(story), then compacted", &tally)
      damaged.erase(String(path.dropLast(".seg".utf8.count)) + ".index")
      try setAside(damaged, isBusy: false, "\(story), without its index", &tally)
      tally.survived += 1
    }
  }

  private func setAside(
    _ disk: SimulatedFileSystem, isBusy: Bool, _ story: String, _ tally: inout Tally
  ) throws(Violation) {
    do throws(Violation) {
      try judge.judgeSpoiled(disk, world.timeline, world.clock, isBusy, &tally.checks)
    } catch { throw Violation(error.invariant, "\(story): \(error.story)") }
  }

  private func refusedOrHarmless(
    _ disk: SimulatedFileSystem, _ story: String, _ tally: inout Tally
  ) throws(Violation) {
    do throws(PenstockError) { _ = try machine(disk.copy()) } catch {
      let isRight = error.code == .corrupted || error.code == .storeNotFound
      try tally.checks.check(.damageIsRefused, isRight, "\(story): refused with \(error)")
      tally.refused += 1
      return
    }
    do throws(Violation) { try showsEverything(disk, story, &tally) } catch {
      throw Violation(.damageIsRefused, "\(story), and not refused: \(error)")
    }
    try tally.checks.check(.damageIsRefused, true, "")
    tally.harmless += 1
  }

  private func survived(
    _ disk: SimulatedFileSystem, _ path: String, isThere: Bool, _ story: String,
    _ tally: inout Tally
  ) throws(Violation) {
    let recovery: RecoveryReport
    do throws(PenstockError) {
      let machine = try machine(disk.copy())
      tally.checks.note(machine)
      recovery = machine.store.recovery
    } catch {
      throw Violation(.spareIsSpared, "\(story): refused with \(error)")
    }
    let isReported = !isThere || path.hasSuffix(".index") || !recovery.damagedCheckpoints.isEmpty
    try tally.checks.check(.spareIsSpared, isReported, "\(story), and nothing was said of it")
    do throws(Violation) { try showsEverything(disk, story, &tally) } catch {
      throw Violation(.spareIsSpared, "\(story): \(error)")
    }
    tally.survived += 1
  }

  private func showsEverything(
    _ disk: SimulatedFileSystem, _ story: String, _ tally: inout Tally
  ) throws(Violation) {
    _ = try judge.judge(
      disk, world.timeline, least: world.timeline.least, world.clock, &tally.checks, story)
  }
}
