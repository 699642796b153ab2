// SPDX-License-Identifier: Apache-2.0
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

/// Small histories, power lost at every system call, each loss in every way that the disk allows
/// or in many by seed. Everything synced must be there, a legal crash is never refused, recovering
/// twice changes nothing, and the log goes on.
@Suite struct CrashesOfSmallHistories {
  private func explore(
    _ steps: [Step], garbling: Bool = false, crashesRecovery: Bool = false
  ) throws {
    let explorer = Explorer(steps)
    explorer.garbling = garbling
    explorer.crashesRecovery = crashesRecovery
    try explorer.run()
  }

  @Test func creation() throws { try explore([], garbling: true, crashesRecovery: true) }

  @Test(arguments: [false, true]) func preparing(_ garbling: Bool) throws {
    try explore([.prepare, .prepare], garbling: garbling)
  }

  /// The seal may reach the disk before the frames that it calls durable, if they are not synced
  /// first.
  @Test func aSealBehindUnsyncedFrames() throws {
    try explore([.prepare, .append(5000, synced: false), .commit, .reopen])
    try explore([
      .prepare, .append(30_000, synced: false), .commit, .prepare, .append(30_000, synced: true),
      .commit,
    ])
  }

  @Test(arguments: [false, true]) func oneCommit(_ garbling: Bool) throws {
    try explore([.prepare, .append(16, synced: true), .commit], garbling: garbling)
  }

  @Test(arguments: [false, true]) func unsyncedCommits(_ garbling: Bool) throws {
    try explore(
      [
        .prepare, .append(16, synced: false), .commit, .append(4000, synced: false), .commit,
        .append(16, synced: false), .commit, .append(16, synced: true), .commit,
      ], garbling: garbling)
  }

  @Test func aHeartbeatBetweenCommits() throws {
    try explore(
      [
        .prepare, .append(16, synced: true), .append(4100, synced: true), .commit, .heartbeat,
        .append(16, synced: false), .commit, .append(16, synced: true), .commit, .heartbeat,
      ], garbling: true)
  }

  @Test func aRoll() throws {
    try explore([
      .prepare, .append(40_000, synced: true), .commit, .prepare, .append(16, synced: false),
      .commit, .append(20_000, synced: true), .commit, .append(16, synced: false), .commit,
    ])
  }

  @Test func twoRollsWithGarbage() throws {
    let explorer = Explorer([
      .prepare, .append(40_000, synced: true), .commit, .prepare, .append(16, synced: false),
      .commit, .append(40_000, synced: true), .commit, .prepare, .append(20_000, synced: true),
      .commit,
    ])
    explorer.garbling = true
    explorer.exhaustive = 16
    explorer.seeds = 8
    try explorer.run()
  }

  @Test func aCleanCloseAndReopening() throws {
    try explore([
      .prepare, .append(16, synced: true), .append(16, synced: false), .commit, .reopen, .prepare,
      .append(16, synced: true), .commit,
    ])
  }

  @Test func aKilledProcess() throws {
    try explore([
      .prepare, .append(16, synced: true), .commit, .append(16, synced: false), .commit, .kill,
      .prepare, .append(16, synced: true), .commit,
    ])
  }

  @Test func aCrashDuringRecovery() throws {
    let explorer = Explorer([
      .prepare, .append(16, synced: true), .commit, .append(5000, synced: false), .commit,
    ])
    explorer.crashesRecovery = true
    explorer.exhaustive = 8
    explorer.seeds = 2
    explorer.garbling = true
    try explorer.run()
  }
}

/// Disks that an exploration found and that an earlier version refused or lost.
@Suite struct CrashesThatOnceWentWrong {
  /// The seal was durable and the cut behind it was not. The opening left the zeros there, and the
  /// one after the next segment had begun refused them as a sealed segment that goes on.
  @Test func aCrashBetweenTheSealAndTheCutBehindItIsMadeGood() throws {
    let disk = SimulatedFileSystem()
    var session = try newLog(disk)
    let frame = try session.commit(payload(1))
    try session.log.seal()
    disk.edit(segment(2)) { $0 += [UInt8](repeating: 0, count: segmentSize - $0.count) }
    disk.kill()

    session = try open(disk)
    #expect(session.found.end == .sealed)
    #expect(disk.contents(of: segment(2))?.count == frame.end + LogFormat.sectorSize)
    try session.prepare()
    try session.commit(payload(2))
    #expect(try reopened(disk).found.payloads == [2: payload(1), 3: payload(2)])
  }

  /// A power loss tore the slot of `HEAD` for a segment. The next roll wrote over the other slot,
  /// and a second power loss tore that: none was left, and the store was refused.
  @Test func aTornHeadIsWrittenOverBeforeTheWholeOne() throws {
    let disk = SimulatedFileSystem()
    let owner = Owner(disk)
    try owner.run([.prepare, .append(16, synced: true), .commit])
    disk.kill()
    disk.edit(headFile) { $0[HeadSlot.offset(1) + 12] ^= 1 }
    let explorer = Explorer(
      [.prepare, .append(16, synced: true), .commit], on: disk, promise: owner.promise)
    explorer.garbling = true
    try explorer.run()
    #expect(explorer.disks > 50)
  }

  /// In a run that lost power, records were written and answered but not synced. The next run gave
  /// out their LSNs again, and a handle of the first run named a message of the second.
  @Test func anLSNThatPowerLossTookIsNotGivenOutAgain() throws {
    let disk = SimulatedFileSystem()
    var session = try newLog(disk)
    try session.commit(payload(1))
    try session.commit(payload(2), synced: false)
    var oldest = OldestChooser()
    disk.crash(choosing: &oldest)

    session = try open(disk)
    #expect(session.found.payloads == [2: payload(1)])
    try session.prepare()
    let next = try session.commit(payload(3)).firstLSN
    #expect(next > 3, "the first run's second record")
    disk.crash(choosing: &oldest)
    #expect(try open(disk).found.payloads == [2: payload(1), next: payload(3)])
  }

  /// The process died between making the directory and syncing its parent. The next one found the
  /// directory, acknowledged records in it, and a power loss took the directory away.
  @Test func theDirectoryOfAProcessThatDiedBeforeItsSyncIsMadeDurable() throws {
    let disk = SimulatedFileSystem()
    try disk.createDirectory(directory)
    disk.kill()

    var session = try newLog(disk)
    try session.commit(payload(1))
    var oldest = OldestChooser()
    disk.crash(choosing: &oldest)
    #expect(try open(disk).found.payloads == [2: payload(1)])
  }

  /// A directory that an administrator made where this process may not even look is taken as it is.
  @Test func aParentThatMayNotBeReadIsTheCallersDuty() throws {
    let disk = SimulatedFileSystem()
    try disk.createDirectory(directory)
    try disk.syncDirectory("/")
    disk.inject(Fault([.syncDirectory], after: 2, errno: 13))
    _ = try open(disk)
    #expect(disk.trace.contains { $0.kind == .syncDirectory && $0.path == "/" && $0.errno == 13 })
  }
}
