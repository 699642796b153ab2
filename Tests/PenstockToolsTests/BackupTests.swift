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
    let sample = try await Sample.make(closes: closes, deletes: 5)
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

  @Test func aSecondBackupCopiesWhatIsNewAndPointsBetweenCanBeRestored() async throws {
    let disk = SimulatedFileSystem()
    let store = try Store.openBlocking(
      at: Sample.directory, options: Sample.options, environment: Sample.environment(disk))
    let queue = try await store.queue("orders")
    let source = Sample.context(disk)
    let target = Sample.context(disk, "/backup")
    var points: [(lsn: UInt64, hash: UInt64)] = []
    var backups: [Backup.Report] = []
    for round in 0..<4 {
      for number in 0..<12 {
        try await queue.send(Sample.body(number + round))
        points.append((store.lastLSN, store.stateHash))
      }
      for lease in try await queue.receive(maximum: 4) { try await lease.delete() }
      backups.append(try Backup(source, target: "/backup").run())
      #expect(backups[round].stateHash == Self.hex(store.stateHash))
    }
    #expect(backups[3].keptFiles > 0)
    try await store.close()
    for (number, point) in points.enumerated() {
      let place = "/restored-\(number)"
      do {
        let report = try Restore(target, to: place, point: .lsn(point.lsn)).run()
        #expect(report.lsn == point.lsn)
        #expect(report.stateHash == Self.hex(point.hash), "LSN \(point.lsn)")
      } catch {
        // What compaction removed between two backups is not in them, and that is said.
        #expect("\(error)".contains("LSN") || "\(error)".contains("no log"), "\(error)")
      }
    }
    let last = try #require(backups.last)
    let restored = try Restore(target, to: "/last").run()
    #expect(restored.stateHash == last.stateHash)
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

  @Test func damageIsNeverCalledVerified() async throws {
    let sample = try await Sample.make()
    _ = try Backup(sample.context, target: "/backup").run()
    for name in try sample.disk.list("/backup") {
      let disk = sample.disk.copy()
      disk.kill()
      let size = disk.contents(of: "/backup/\(name)")?.count ?? 0
      disk.flipBit(size / 2 * 8, in: "/backup/\(name)")
      if name == "HEAD" { continue }  // written anew
      #expect(throws: ToolError.self, "\(name)") {
        try Restore(Sample.context(disk, "/backup"), to: "/restored").run()
      }
      #expect(try disk.status("/restored") == nil)
    }
    let segment = try sample.segments[1]
    sample.disk.flipBit(9000 * 8, in: sample.path(segment))
    #expect(throws: ToolError.self) { try Backup(sample.context, target: "/other").run() }
  }

  @Test func aTargetThatIsSomethingElseIsRefused() async throws {
    let sample = try await Sample.make()
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
