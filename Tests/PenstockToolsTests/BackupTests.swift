// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSystem
import PenstockTesting
import PenstockTools
import Testing

@Suite struct BackingUp {
  /// The state hash that a store shows when it is opened; the store is closed again.
  static func open(_ disk: SimulatedFileSystem, _ directory: String) async throws -> (
    hash: UInt64, queues: [String], lsn: UInt64
  ) {
    let store = try Store.openBlocking(
      at: directory, options: Sample.options, environment: Sample.environment(disk))
    let shown = (store.stateHash, store.queueNames(), store.lastLSN)
    try await store.close()
    return shown
  }

  static func hex(_ hash: UInt64) -> String {
    let text = String(hash, radix: 16)
    return String(repeating: "0", count: 16 - text.count) + text
  }

  @Test(arguments: [true, false])
  func aBackupRestoresToTheSameState(_ closes: Bool) async throws {
    let sample = try Sample.make(closes: closes, deletes: 5)
    let before = try sample.image()
    let backup = try Backup(sample.context, target: "/backup").run()
    #expect(try sample.image() == before)
    #expect(backup.lsn == sample.lastLSN)
    #expect(backup.stateHash == Self.hex(sample.stateHash))
    #expect(try Verify(Sample.context(sample.disk, "/backup")).run().isSound)
    #expect(try Stats(Sample.context(sample.disk, "/backup")).run().stateHash == backup.stateHash)

    let target = Sample.context(sample.disk, "/backup")
    let restored = try Restore(target, to: "/restored").run()
    #expect(restored.lsn == backup.lsn)
    #expect(restored.stateHash == backup.stateHash)
    let report = try Verify(Sample.context(sample.disk, "/restored")).run()
    #expect(report.isSound, "\(report.text)")
    #expect(try await Self.open(sample.disk, "/restored").hash == sample.stateHash)
    #expect(throws: ToolError.self) { try Restore(target, to: "/restored").run() }
  }

  @Test func aSecondBackupCopiesWhatIsNewAndPointsBetweenCanBeRestored() throws {
    let disk = SimulatedFileSystem()
    let driven = try DrivenStore(disk)
    let store = driven.store
    let queue = try driven.queue("orders")
    let source = Sample.context(disk)
    let target = Sample.context(disk, "/backup")
    var points: [(lsn: UInt64, hash: UInt64)] = []
    var backups: [Backup.Report] = []
    for round in 0..<4 {
      for number in 0..<12 {
        try driven.send(Sample.body(number + round), to: queue)
        points.append((store.lastLSN, store.stateHash))
      }
      _ = try driven.consume(4, of: queue)
      backups.append(try Backup(source, target: "/backup").run())
      #expect(backups[round].stateHash == Self.hex(store.stateHash))
    }
    #expect(backups[3].keptFiles > 0)
    try driven.close()
    var restored = 0
    for (number, point) in points.enumerated() {
      let place = "/restored-\(number)"
      do {
        let report = try Restore(target, to: place, point: .lsn(point.lsn)).run()
        #expect(report.lsn == point.lsn)
        #expect(report.stateHash == Self.hex(point.hash), "LSN \(point.lsn)")
        restored += 1
      } catch {
        // What compaction removed between two backups is not in them, and that is said.
        #expect("\(error)".contains("LSN") || "\(error)".contains("no log"), "\(error)")
      }
    }
    #expect(restored > points.count / 2, "\(restored) of \(points.count)")
    let last = try #require(backups.last)
    let end = try Restore(target, to: "/last").run()
    #expect(end.stateHash == last.stateHash)
    #expect(throws: ToolError.self) {
      try Restore(target, to: "/none", point: .lsn(last.lsn + 1)).run()
    }
    #expect(throws: ToolError.self) {
      try Restore(target, to: "/none", point: .time(last.time + 1)).run()
    }
    #expect(try disk.status("/none") == nil)
  }

  @Test func aBackupUnderLoadIsVerified() async throws {
    let disk = SimulatedFileSystem()
    let store = try Store.openBlocking(
      at: Sample.directory, options: Sample.options, environment: Sample.environment(disk))
    let queue = try await store.queue("orders")
    let load = Task {
      for number in 0..<150 {
        try await queue.send(Sample.body(number))
        for lease in try await queue.receive(maximum: 1) where number % 3 > 0 {
          try await lease.delete()
        }
      }
    }
    for round in 0..<4 {
      let report = try Backup(Sample.context(disk), target: "/backup").run()
      let restored = try Restore(Sample.context(disk, "/backup"), to: "/restored-\(round)").run()
      #expect(restored.lsn == report.lsn)
      #expect(restored.stateHash == report.stateHash)
      #expect(
        try await Self.hex(Self.open(disk, "/restored-\(round)").hash) == report.stateHash)
    }
    try await load.value
    try await store.close()
  }

  @Test func damageIsNeverCalledVerified() throws {
    let sample = try Sample.make()
    _ = try Backup(sample.context, target: "/backup").run()
    for name in try sample.disk.list("/backup") where !["HEAD", "BACKUP.lock"].contains(name) {
      let disk = sample.disk.copy()
      disk.kill()
      let size = disk.contents(of: "/backup/\(name)")?.count ?? 0
      disk.flipBit(size / 2 * 8, in: "/backup/\(name)")
      // A checkpoint that does not lie where the replay begins is not needed.
      do {
        let report = try Restore(Sample.context(disk, "/backup"), to: "/restored").run()
        #expect(name.hasSuffix(".checkpoint"), "\(name)")
        #expect(report.stateHash == Self.hex(sample.stateHash))
      } catch {
        #expect(try disk.status("/restored") == nil)
      }
    }
    for name in try sample.segments {
      let damaged = sample.copy()
      damaged.disk.flipBit((4096 + 70) * 8, in: damaged.path(name))
      let opens = try damaged.refusal() == nil
      let backup = Backup(damaged.context, target: "/other")
      guard opens else {
        #expect(throws: ToolError.self, "\(name)") { try backup.run() }
        continue
      }
      // The state is whole, and the bytes of a message are not: the copy is made, and says so,
      // each time.
      for _ in 0..<2 {
        let report = try backup.run()
        #expect(!report.isVerified, "\(name)")
        #expect(report.text.contains(name))
      }
      let restored = try Restore(Sample.context(damaged.disk, "/other"), to: "/restored").run()
      #expect(restored.damagedFiles == [name])
    }
  }

  /// The state can be copied without the messages that live in a lost segment; that is no backup.
  @Test func aStoreThatLacksASegmentIsNotBackedUp() throws {
    let original = try Sample.make()
    var refusals: [String] = []
    for name in try original.segments {
      let sample = original.copy()
      sample.disk.erase(sample.path(name))
      guard let refusal = try sample.refusal() else { continue }
      refusals.append(refusal.message)
      #expect(throws: ToolError.self) { try Backup(sample.context, target: "/backup").run() }
      #expect(try sample.disk.status("/backup/BACKUP") == nil)
    }
    #expect(refusals.contains { $0.contains("messages were in it") })
  }

  /// Compaction removes segments between any two steps of a backup. Each attempt is cheaper than
  /// the one before, and the last one is verified.
  @Test func segmentsThatVanishUnderABackupAreNoHarm() throws {
    let disk = SimulatedFileSystem()
    let store = try DrivenStore(disk)
    let queue = try store.queue("orders")
    for number in 0..<40 { try store.send(Sample.body(number), to: queue) }
    let first = try disk.list(Sample.directory).filter { $0.hasSuffix(".seg") }
    let busy = Busy()
    var context = Sample.context(disk)
    context.progress = { progress in
      guard busy.steps < 60 else { return }
      busy.steps += 1
      do {
        for number in 0..<3 { try store.send(Sample.body(busy.steps + number), to: queue) }
        _ = try store.consume(3, of: queue)
        store.clock.advance(by: .seconds(1))
        store.settle()
      } catch { Issue.record(error) }
    }
    let backup = try Backup(context, target: "/backup").run()
    #expect(busy.steps == 60)
    #expect(backup.isVerified)
    #expect(try disk.list(Sample.directory).allSatisfy { !first.contains($0) })
    #expect(backup.stateHash == Self.hex(store.store.stateHash))
    let restored = try Restore(Sample.context(disk, "/backup"), to: "/restored").run()
    #expect(restored.stateHash == backup.stateHash)
    let report = try Verify(Sample.context(disk, "/restored")).run()
    #expect(report.isSound, "\(report.text)")
    try store.close()
  }

  private final class Busy { var steps = 0 }

  /// The original went on after the backup and was lost; its clients still have handles of that
  /// time.
  @Test(arguments: [true, false], [true, false])
  func noHandleOfTheOriginalNamesAMessageOfTheRestored(
    _ closes: Bool, _ crashes: Bool
  ) async throws {
    let sample = try Sample.make(closes: closes)
    _ = try Backup(sample.context, target: "/backup").run()
    if crashes {
      // Each loss leaves LSNs out.
      let (_, _, _) = try await Self.open(sample.disk, Sample.directory)
    }
    let store = try await Store.open(
      at: Sample.directory, options: Sample.options, environment: Sample.environment(sample.disk))
    for _ in 0..<50 { try await store.queue("orders").send("later") }
    let last = store.lastLSN
    try await store.close()
    _ = try Restore(Sample.context(sample.disk, "/backup"), to: "/restored").run()
    let restored = try await Store.open(
      at: "/restored", options: Sample.options, environment: Sample.environment(sample.disk))
    try await restored.queue("orders").send("new")
    #expect(restored.lastLSN > last + 1 << 30)
    #expect(restored.recovery.unknownFiles.isEmpty)
    try await restored.close()
    #expect(try Verify(Sample.context(sample.disk, "/restored")).run().isSound)
  }

  /// A backup that ends in any call leaves the one before as it was, and the next one goes on.
  @Test func aBackupThatIsCutShortLeavesTheOneBefore() throws {
    let disk = SimulatedFileSystem()
    let store = try DrivenStore(disk)
    let queue = try store.queue("orders")
    for number in 0..<20 { try store.send(Sample.body(number), to: queue) }
    let one = try Backup(Sample.context(disk), target: "/backup").run()
    for number in 0..<20 { try store.send(Sample.body(number), to: queue) }
    _ = try store.consume(3, of: queue)
    let end = Self.hex(store.store.stateHash)
    for call in stride(from: 0, to: 10_000, by: 3) {
      let copy = disk.copy()
      copy.kill()
      copy.inject(Fault(after: call, isPermanent: true, errno: 5))
      var isThrough = false
      do {
        _ = try Backup(Sample.context(copy), target: "/backup").run()
        isThrough = true
      } catch {}
      copy.clearFaults()
      var chooser = SeededChooser(seed: UInt64(call))
      copy.crash(choosing: &chooser)
      let restored = try Restore(Sample.context(copy, "/backup"), to: "/restored").run()
      let expected = isThrough ? [end] : [one.stateHash, end]
      #expect(expected.contains(restored.stateHash), "after call \(call)")
      let next = try Backup(Sample.context(copy), target: "/backup").run()
      #expect(next.isVerified, "after call \(call)")
      if isThrough { break }
    }
    try store.close()
  }

  @Test func aTargetThatIsSomethingElseIsRefused() throws {
    let sample = try Sample.make()
    try sample.disk.createDirectory("/home")
    sample.disk.replace("/home/letter", with: [1])
    #expect(throws: ToolError.self) { try Backup(sample.context, target: "/home").run() }
    #expect(throws: ToolError.self) { try Backup(sample.context, target: "/store").run() }
    #expect(throws: ToolError.self) {
      try Restore(Sample.context(sample.disk, "/home"), to: "/x").run()
    }
  }

  @Test func timesAreReadAsTheyAreWritten() {
    for time in [0, 951_782_400_000, 1_700_000_000_123, 4_102_444_799_999] as [Int64] {
      #expect(TimeText.milliseconds(TimeText.text(time)) == time)
    }
    #expect(TimeText.milliseconds("2026-02-30T00:00:00Z") == nil)
    #expect(TimeText.milliseconds("yesterday") == nil)
  }
}
