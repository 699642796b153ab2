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

@Suite struct Faults {
  let disk = SimulatedFileSystem(sectorSize: 512)

  @Test func theNthCallFailsOnce() throws {
    disk.inject(Fault(after: 1, errno: EIO))
    let file = try disk.open("/a", .create)
    expect(errno: EIO) { try file.write([1]) }
    #expect(try file.size() == 0)
    try file.write([1])
    #expect(disk.contents(of: "/a") == [1])
  }

  @Test func theNthCallOfAKindFailsForEver() throws {
    disk.inject(Fault([.syncData, .sync], after: 1, isPermanent: true, errno: EDQUOT))
    let file = try disk.open("/a", .create)
    try file.sync()
    for _ in 0..<3 {
      try file.write([1])
      expect(errno: EDQUOT) { try file.syncData() }
      expect(errno: EDQUOT) { try file.sync() }
    }
    disk.clearFaults()
    try file.sync()
  }

  /// Makes each call of a small history fail, one after the other, until none is left.
  @Test func everyCallCanFail() throws {
    var failed: [CallKind] = []
    for skipped in 0..<100 {
      let disk = SimulatedFileSystem()
      disk.inject(Fault(after: skipped, errno: EIO))
      do {
        try disk.createDirectory("/d")
        let lock = try disk.lock("/d/LOCK")
        let file = try disk.open("/d/a", .create)
        try file.write([1, 2])
        try file.truncate(to: 1)
        _ = try file.read(1)
        _ = try file.size()
        try file.syncData()
        try file.sync()
        try file.close()
        try disk.rename("/d/a", to: "/d/b")
        _ = try disk.status("/d/b")
        _ = try disk.list("/d")
        try disk.remove("/d/b")
        try disk.syncDirectory("/d")
        lock.release()
        break
      } catch {
        #expect(error.errno == EIO)
        failed += disk.trace.filter { $0.errno == EIO }.map(\.kind)
      }
    }
    #expect(Set(failed) == Set(CallKind.allCases))
    #expect(failed.count == CallKind.allCases.count)
  }

  @Test func aWriteCanFailHalfWay() throws {
    let file = try disk.open("/a", .create)
    disk.inject(Fault([.write], errno: EIO, effect: .partial(bytes: 2)))
    expect(errno: EIO) { try file.write([1, 2, 3], at: 1) }
    #expect(disk.contents(of: "/a") == [0, 1, 2])
  }

  @Test func aCallCanSucceedAndReportAnError() throws {
    _ = try disk.open("/a", .create)
    disk.inject(Fault([.rename], errno: EIO, effect: .complete))
    expect(errno: EIO) { try disk.rename("/a", to: "/b") }
    #expect(try disk.list("/") == ["b"])
  }

  @Test func aFailedSyncCanDropPagesAndTheNextOneSucceed() throws {
    let file = try disk.open("/a", .create)
    try file.write(bytes(1, 1024))
    try file.sync()
    try disk.syncDirectory("/")
    try file.write(bytes(2, 1024))
    disk.inject(Fault([.syncData], errno: EIO, effect: .dropsPending))
    expect(errno: EIO) { try file.syncData() }
    try file.syncData()
    #expect(try file.read(1024) == bytes(2, 1024), "the cache hides the loss")
    try file.write([3], at: 1024)
    try file.sync()
    var chooser = SeededChooser(seed: 0)
    disk.crash(choosing: &chooser)
    #expect(disk.contents(of: "/a") == bytes(1, 1024) + [3])
  }

  @Test func aFailedSyncOfADirectoryCanDropItsNames() throws {
    let file = try disk.open("/a", .create)
    disk.inject(Fault([.syncDirectory], errno: EIO, effect: .dropsPending))
    expect(errno: EIO) { try disk.syncDirectory("/") }
    try disk.syncDirectory("/")
    #expect(try file.size() == 0)
    var chooser = ExhaustiveChooser()
    while chooser.next() {
      let after = disk.crashed(choosing: &chooser)
      #expect(try after.list("/") == [])
    }
  }

  @Test func aFullDiskTakesWhatFits() throws {
    disk.capacity = 10
    let file = try disk.open("/a", .create)
    try file.write(bytes(1, 6))
    let error = #expect(throws: SystemError.self) { try file.write(bytes(2, 6), at: 6) }
    #expect(error?.isOutOfSpace == true)
    #expect(disk.contents(of: "/a") == bytes(1, 6) + bytes(2, 4))
    #expect(disk.used == 10)
    try file.write(bytes(3, 10))
    let other = try disk.open("/b", .create)
    expect(errno: ENOSPC) { try other.write([1]) }
    expect(errno: ENOSPC) { try other.truncate(to: 1) }
    try file.truncate(to: 9)
    try other.write([1])
    expect(errno: ENOSPC) { try other.write([1], at: 5) }
    try disk.remove("/a")
    try other.write([1], at: 5)
    #expect(disk.used == 6)
    disk.capacity = nil
    try other.write(bytes(1, 100))
  }

  @Test func damageCanBeDone() throws {
    let file = try disk.open("/a", .create)
    try file.write(bytes(0, 100))
    try file.sync()
    try disk.syncDirectory("/")
    disk.flipBit(8 * 3 + 2, in: "/a")
    disk.flipBit(100_000, in: "/a")
    #expect(try file.read(5) == [0, 0, 0, 4, 0])
    disk.setUnreadable([10..<12], in: "/a")
    #expect(try file.read(10).count == 10)
    expect(errno: EIO) { _ = try file.read(11) }
    expect(errno: EIO) { _ = try file.read(1, at: 11) }
    #expect(try file.read(100, at: 12).count == 88)
    var chooser = SeededChooser(seed: 9)
    disk.crash(choosing: &chooser)
    #expect(disk.contents(of: "/a")?[3] == 4)
    expect(errno: EIO) { _ = try disk.open("/a", .readOnly).read(100) }
    disk.setUnreadable([], in: "/a")
    #expect(try disk.open("/a", .readOnly).read(100).count == 100)
  }

  @Test func contentsCanBeReplacedAndErased() throws {
    #expect(!disk.replace("/d/a", with: [1]))
    try disk.createDirectory("/d")
    #expect(disk.replace("/d/a", with: [1]))
    #expect(disk.replace("/b", with: [2]))
    var chooser = ExhaustiveChooser()
    while chooser.next() {
      let after = disk.crashed(choosing: &chooser)
      #expect(after.contents(of: "/d/a") == [1])
      #expect(after.contents(of: "/b") == [2])
    }
    #expect(chooser.rounds == 1)
    #expect(disk.erase("/d"))
    #expect(!disk.erase("/d"))
    #expect(disk.contents(of: "/d/a") == nil)
    #expect(try disk.list("/") == ["b"])
    #expect(disk.contents(of: "/") == nil)
  }

  @Test func theTraceIsBoundedAndInOrder() throws {
    let disk = SimulatedFileSystem(traceLimit: 3)
    let file = try disk.open("/a", .create)
    for index in 0..<20 { try file.write([1, 2], at: UInt64(index)) }
    _ = try? disk.open("/none", .readOnly)
    let calls = disk.trace
    #expect(calls.map(\.kind) == [.write, .write, .open])
    #expect(calls.map(\.offset) == [18, 19, 0])
    #expect(calls.map(\.length) == [2, 2, 0])
    #expect(calls.map(\.errno) == [0, 0, ENOENT])
    #expect(calls.last?.path == "/none")
    #expect(disk.callCount() == 22)
    #expect(disk.callCount([.write]) == 20)
  }
}

@Suite struct PathsOfTheSimulation {
  @Test func otherDirectoriesAndParentsAreRefused() throws {
    let disk = SimulatedFileSystem()
    try disk.createDirectory("d")
    _ = try disk.open("d/a", .create)
    expect(errno: EXDEV) { try disk.rename("/d/a", to: "/a") }
    expect(errno: EINVAL) { _ = try disk.list("/d/..") }
    #expect(try disk.list("/./d") == ["a"])
  }
}
