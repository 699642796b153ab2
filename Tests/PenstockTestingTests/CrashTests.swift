// SPDX-License-Identifier: Apache-2.0
import PenstockSystem
import PenstockTesting
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Everything a directory tree can look like after a crash, each look once, in a fixed order.
private func outcomes(_ disk: SimulatedFileSystem, garbling: Bool = false) throws -> [String] {
  var chooser = ExhaustiveChooser()
  var seen: Set<String> = []
  while chooser.next() {
    let after = disk.crashed(choosing: &chooser, garbling: garbling)
    seen.insert(try look(after, "/"))
  }
  return seen.sorted()
}

/// Names with their content, one letter per sector: the last digit of its bytes, `x` when they
/// differ.
private func look(_ disk: SimulatedFileSystem, _ directory: String) throws -> String {
  try disk.list(directory).map { name in
    let path = directory + name
    guard let content = disk.contents(of: path) else {
      return "\(name)(\(try look(disk, path + "/")))"
    }
    let sectors = stride(from: 0, to: content.count, by: 512).map { start in
      let sector = Set(content[start..<min(start + 512, content.count)])
      return sector.count == 1 ? "\(sector.first.map { $0 % 10 } ?? 0)" : "x"
    }
    return "\(name):\(sectors.joined())"
  }.joined(separator: " ")
}

@Suite struct CrashOfFileContents {
  let disk = SimulatedFileSystem(sectorSize: 512)

  /// A durable file of so many sectors of ones.
  private func durableFile(_ sectors: Int) throws -> any File {
    let file = try disk.open("/a", .create)
    try file.write(bytes(1, sectors * 512))
    try file.syncData()
    try disk.syncDirectory("/")
    return file
  }

  @Test(arguments: [CallKind.syncData, .sync]) func syncedBytesAlwaysSurvive(_ kind: CallKind)
    throws
  {
    let file = try durableFile(2)
    try file.write(bytes(2, 700), at: 512)
    if kind == .sync { try file.sync() } else { try file.syncData() }
    #expect(try outcomes(disk, garbling: true) == ["a:122"])
    #expect(disk.contents(of: "/a")?.count == 1212)
  }

  @Test func anUnsyncedOverwriteTearsBySector() throws {
    try durableFile(3).write(bytes(2, 1024))
    #expect(try outcomes(disk) == ["a:111", "a:121", "a:211", "a:221"])
  }

  @Test func anUnsyncedAppendMayLoseSizeOrBytes() throws {
    try durableFile(1).write(bytes(2, 1024), at: 512)
    #expect(try outcomes(disk) == ["a:1", "a:100", "a:102", "a:120", "a:122"])
  }

  @Test func unsyncedWritesReachTheDiskInAnyOrder() throws {
    let file = try durableFile(2)
    try file.write(bytes(2, 512))
    try file.write(bytes(3, 512), at: 512)
    #expect(try outcomes(disk) == ["a:11", "a:13", "a:21", "a:23"])
  }

  @Test func aSectorShowsOneOfItsStates() throws {
    let file = try durableFile(1)
    try file.write(bytes(2, 512))
    try file.write(bytes(3, 512))
    #expect(try outcomes(disk) == ["a:1", "a:2", "a:3"])
  }

  @Test func aPendingSectorMayBecomeGarbage() throws {
    try durableFile(2).write([2])
    #expect(try outcomes(disk) == ["a:11", "a:x1"])
    var chooser = ExhaustiveChooser()
    var contents: Set<[UInt8]> = []
    while chooser.next() {
      let after = disk.crashed(choosing: &chooser, garbling: true)
      contents.insert(after.contents(of: "/a") ?? [])
    }
    #expect(contents.count == 3)
    #expect(contents.allSatisfy { $0.suffix(512) == bytes(1, 512)[...] })
  }

  @Test func aTruncationHappensOrNot() throws {
    try durableFile(3).truncate(to: 512)
    #expect(try outcomes(disk) == ["a:1", "a:111"])
  }

  @Test func bytesOfBeforeATruncationNeverComeBackBehindIt() throws {
    let file = try durableFile(2)
    try file.truncate(to: 0)
    try file.truncate(to: 1024)
    try file.write(bytes(2, 512))
    // Before the cut: all old. Between: empty. After: zeros or the new bytes, never the old ones.
    #expect(try outcomes(disk) == ["a:", "a:00", "a:11", "a:20"])
  }

  @Test func readsSeeTheNewestStateBeforeACrash() throws {
    let file = try durableFile(1)
    try file.write([9], at: 600)
    #expect(try file.size() == 601)
    #expect(try file.read(2, at: 599) == [0, 9])
  }

  @Test func whatACrashLeftIsDurable() throws {
    try durableFile(2).write(bytes(2, 1024))
    var chooser = SeededChooser(seed: 3)
    disk.crash(choosing: &chooser)
    #expect(try outcomes(disk) == [try look(disk, "/")])
  }

  @Test func aPartOfASectorIsWrittenWithTheRestOfIt() throws {
    let file = try durableFile(1)
    try file.write([5], at: 512)
    try file.write([5], at: 513)
    try file.syncData()
    var chooser = ExhaustiveChooser()
    while chooser.next() {
      let after = disk.crashed(choosing: &chooser)
      #expect(after.contents(of: "/a") == bytes(1, 512) + [5, 5])
    }
  }
}

@Suite struct CrashOfNames {
  let disk = SimulatedFileSystem(sectorSize: 512)

  /// A durable file of one sector.
  private func durable(_ path: String, _ value: UInt8) throws {
    let file = try disk.open(path, .create)
    try file.write(bytes(value, 512))
    try file.sync()
    try disk.syncDirectory("/")
  }

  @Test func anUnsyncedCreationMayVanishWithItsSyncedBytes() throws {
    let file = try disk.open("/a", .create)
    try file.write(bytes(1, 512))
    try file.sync()
    #expect(try outcomes(disk) == ["", "a:1"])
    try disk.syncDirectory("/")
    #expect(try outcomes(disk) == ["a:1"])
  }

  @Test func aSyncedNameDoesNotMakeBytesDurable() throws {
    try disk.open("/a", .create).write(bytes(1, 512))
    try disk.syncDirectory("/")
    #expect(try outcomes(disk) == ["a:", "a:0", "a:1"])
  }

  @Test func aRenameShowsTheOldStateOrTheNewOne() throws {
    try durable("/a", 1)
    try durable("/b", 2)
    try disk.rename("/a", to: "/b")
    #expect(try outcomes(disk) == ["a:1 b:2", "b:1"])
    try disk.syncDirectory("/")
    #expect(try outcomes(disk) == ["b:1"])
  }

  @Test func aRenameOfANewFileMayLoseItButNotItsTarget() throws {
    try durable("/b", 2)
    let file = try disk.open("/b.tmp", .create)
    try file.write(bytes(1, 512))
    try file.sync()
    try disk.rename("/b.tmp", to: "/b")
    #expect(try outcomes(disk) == ["b:1", "b:2", "b:2 b.tmp:1"])
  }

  @Test func aRemovalMayReachTheDiskBeforeAnEarlierRename() throws {
    try durable("/new.tmp", 1)
    try durable("/old", 2)
    try disk.rename("/new.tmp", to: "/new")
    try disk.remove("/old")
    #expect(
      try outcomes(disk) == ["new.tmp:1", "new.tmp:1 old:2", "new:1", "new:1 old:2"])
  }

  @Test func changesOfOneNameKeepTheirOrder() throws {
    try durable("/a", 1)
    try disk.rename("/a", to: "/b")
    let file = try disk.open("/a", .create)
    try file.write(bytes(2, 512))
    try file.sync()
    #expect(try outcomes(disk) == ["a:1", "a:2 b:1", "b:1"])
  }

  @Test func aNewDirectoryNeedsItsParent() throws {
    try disk.createDirectory("/d")
    let file = try disk.open("/d/a", .create)
    try file.write(bytes(1, 512))
    try file.sync()
    try disk.syncDirectory("/d")
    #expect(try outcomes(disk) == ["", "d(a:1)"])
    try disk.syncDirectory("/")
    #expect(try outcomes(disk) == ["d(a:1)"])
  }
}

@Suite struct CrashOfProcesses {
  let disk = SimulatedFileSystem(sectorSize: 512)

  @Test func aKillKeepsWhatWasWrittenAndEndsHandles() throws {
    let file = try disk.open("/a", .create)
    let lock = try disk.lock("/LOCK")
    try file.write(bytes(1, 512))
    disk.kill()
    expect(errno: EIO) { try file.write([1]) }
    expect(errno: EIO) { try file.close() }
    #expect(disk.contents(of: "/a") == bytes(1, 512))
    let again = try disk.lock("/LOCK")
    lock.release()
    expect(errno: EAGAIN) { _ = try disk.lock("/LOCK") }
    again.release()
    #expect(try outcomes(disk).contains(""), "pending changes are still pending")
  }

  @Test func aSyncOfTheNextProcessMakesTheBytesOfTheLastOneDurable() throws {
    try disk.open("/a", .create).write(bytes(1, 512))
    disk.kill()
    try disk.open("/a", .readWrite).sync()
    try disk.syncDirectory("/")
    #expect(try outcomes(disk) == ["a:1"])
  }

  @Test func aCrashEndsHandlesAndLocks() throws {
    let file = try disk.open("/a", .create)
    try disk.syncDirectory("/")
    let lock = try disk.lock("/a")
    var chooser = SeededChooser(seed: 1)
    disk.crash(choosing: &chooser)
    expect(errno: EIO) { _ = try file.read(1) }
    _ = try disk.lock("/a")
    lock.release()
  }

  @Test func aCrashOfACopyLeavesTheOriginalAlone() throws {
    let file = try disk.open("/a", .create)
    var chooser = ExhaustiveChooser()
    while chooser.next() { _ = disk.crashed(choosing: &chooser) }
    #expect(chooser.rounds == 2)
    try file.write([1])
    #expect(disk.contents(of: "/a") == [1])
  }

  /// The same seed gives the same disk, also with many pending changes.
  @Test(arguments: 0..<20 as Range<UInt64>) func crashesAreRepeatable(_ seed: UInt64) throws {
    let looks = try (0..<2).map { _ in
      let disk = SimulatedFileSystem(sectorSize: 512)
      let random = StableRandom(seed: seed)
      for index in 0..<20 {
        let file = try disk.open("/f\(index)", .create)
        for _ in 0..<5 {
          let offset = UInt64(random.below(4000))
          try file.write(bytes(UInt8(random.below(255)), random.below(2000)), at: offset)
        }
        if random.chance(1, of: 2) { try file.sync() }
        if random.chance(1, of: 4) { try disk.syncDirectory("/") }
        if random.chance(1, of: 4) { try disk.rename("/f\(index)", to: "/g\(random.below(9))") }
      }
      var chooser = SeededChooser(seed: seed)
      disk.crash(choosing: &chooser, garbling: true)
      return try disk.list("/").map { "\($0) \(disk.contents(of: "/" + $0) ?? [])" }
    }
    #expect(looks[0] == looks[1])
  }
}
