// SPDX-License-Identifier: Apache-2.0
import PenstockSystem
import PenstockTesting
import Synchronization
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// What both file systems promise: the simulated one is worth nothing where it differs.
@Suite struct FileSystemConformance {
  @Test(arguments: Kind.allCases) func whatIsWrittenIsRead(_ kind: Kind) throws {
    try withDirectory(on: kind) { fileSystem, base in
      let file = try fileSystem.open("\(base)/a", .create)
      try file.write([1, 2, 3], at: 4)
      #expect(try file.size() == 7)
      #expect(try file.read(100) == [0, 0, 0, 0, 1, 2, 3])
      #expect(try file.read(2, at: 5) == [2, 3])
      #expect(try file.read(2, at: 7) == [])
      #expect(try file.read(2, at: 1 << 40) == [])
      #expect(try file.read(0) == [])
      try file.write([], at: 1000)
      #expect(try file.size() == 7)
      try file.syncData()
      try file.sync()
      try file.close()
      #expect(try fileSystem.open("\(base)/a", .readOnly).read(7) == [0, 0, 0, 0, 1, 2, 3])
    }
  }

  /// Whole blocks in aligned memory go past the page cache, others through it; no reader can tell.
  @Test(arguments: Kind.allCases) func whatIsWrittenThroughIsRead(_ kind: Kind) throws {
    try withDirectory(on: kind) { fileSystem, base in
      let file = try fileSystem.open("\(base)/a", .create)
      let reader = try fileSystem.open("\(base)/a", .readOnly)
      var expected = [UInt8](repeating: 0, count: 8 * 4096)
      try file.write(expected)
      #expect(try reader.read(expected.count) == expected)
      let buffer = CommitBuffer(capacity: 3 * 4096)
      let writes: [(offset: Int, count: Int)] = [
        (4096, 8192), (0, 4096), (100, 4096), (4096, 100), (5 * 4096, 12288),
        (4096, 0), (8192, 4095),
      ]
      for (index, write) in writes.enumerated() {
        let bytes = [UInt8](repeating: UInt8(index + 1), count: write.count)
        buffer.removeAll()
        buffer.put(bytes)
        try buffer.withBytes { try file.writeThrough($0, at: UInt64(write.offset)) }
        expected.replaceSubrange(write.offset..<write.offset + write.count, with: bytes)
        #expect(try reader.read(expected.count) == expected, "after \(write)")
      }
      try file.syncData()
      try file.close()
      expect(errno: EBADF) { try buffer.withBytes { try file.writeThrough($0, at: 0) } }
      #expect(try reader.read(expected.count) == expected)
    }
  }

  @Test(arguments: Kind.allCases) func largeTransfersAreComplete(_ kind: Kind) throws {
    try withDirectory(on: kind) { fileSystem, base in
      let file = try fileSystem.open("\(base)/a", .create)
      let content = (0..<3_000_001).map { UInt8(truncatingIfNeeded: $0 / 7) }
      try file.write(content, at: 4095)
      #expect(try file.read(4_000_000, at: 4095) == content)
    }
  }

  @Test(arguments: Kind.allCases) func truncationCutsAndExtendsWithZeros(_ kind: Kind) throws {
    try withDirectory(on: kind) { fileSystem, base in
      let file = try fileSystem.open("\(base)/a", .create)
      try file.write(bytes(7, 5000))
      try file.truncate(to: 2)
      #expect(try file.size() == 2)
      try file.truncate(to: 4)
      #expect(try file.read(10) == [7, 7, 0, 0])
    }
  }

  @Test(arguments: Kind.allCases) func openModesAreKept(_ kind: Kind) throws {
    try withDirectory(on: kind) { fileSystem, base in
      expect(errno: ENOENT) { _ = try fileSystem.open("\(base)/a", .readOnly) }
      expect(errno: ENOENT) { _ = try fileSystem.open("\(base)/a", .readWrite) }
      expect(errno: ENOENT) { _ = try fileSystem.open("\(base)/none/a", .create) }
      let file = try fileSystem.open("\(base)/a", .create)
      expect(errno: EEXIST) { _ = try fileSystem.open("\(base)/a", .create) }
      expect(errno: ENOTDIR) { _ = try fileSystem.open("\(base)/a/b", .create) }
      expect(errno: EISDIR) { _ = try fileSystem.open(base, .readWrite) }
      try file.write([1])
      let reader = try fileSystem.open("\(base)/a", .readOnly)
      expect(errno: EBADF) { try reader.write([2]) }
      expect(errno: EINVAL) { try reader.truncate(to: 0) }
      try fileSystem.open("\(base)/a", .readWrite).write([3])
      #expect(try reader.read(1) == [3])
    }
  }

  @Test(arguments: Kind.allCases) func aClosedFileRefusesCalls(_ kind: Kind) throws {
    try withDirectory(on: kind) { fileSystem, base in
      let file = try fileSystem.open("\(base)/a", .create)
      try file.close()
      try file.close()
      expect(errno: EBADF) { try file.write([1]) }
      expect(errno: EBADF) { _ = try file.read(1) }
      expect(errno: EBADF) { try file.syncData() }
      expect(errno: EBADF) { try file.sync() }
      expect(errno: EBADF) { try file.truncate(to: 1) }
      expect(errno: EBADF) { _ = try file.size() }
    }
  }

  @Test(arguments: Kind.allCases) func rangesNoFileCanHaveAreRefused(_ kind: Kind) throws {
    try withDirectory(on: kind) { fileSystem, base in
      let file = try fileSystem.open("\(base)/a", .create)
      expect(errno: EFBIG) { try file.write([1], at: .max) }
      expect(errno: EFBIG) { try file.truncate(to: .max) }
      expect(errno: EFBIG) { _ = try file.read(1, at: .max) }
    }
  }

  @Test(arguments: Kind.allCases) func directoriesListTheirNamesSorted(_ kind: Kind) throws {
    try withDirectory(on: kind) { fileSystem, base in
      try fileSystem.createDirectory("\(base)/m")
      expect(errno: EEXIST) { try fileSystem.createDirectory("\(base)/m") }
      expect(errno: ENOENT) { try fileSystem.createDirectory("\(base)/x/y") }
      for name in ["z", "b", "a0", "a"] { _ = try fileSystem.open("\(base)/\(name)", .create) }
      _ = try fileSystem.open("\(base)/m/inner", .create)
      #expect(try fileSystem.list(base) == ["a", "a0", "b", "m", "z"])
      #expect(try fileSystem.list("\(base)//m/") == ["inner"])
      expect(errno: ENOENT) { _ = try fileSystem.list("\(base)/none") }
      expect(errno: ENOTDIR) { _ = try fileSystem.list("\(base)/a") }
    }
  }

  @Test(arguments: Kind.allCases) func statusTellsAbsenceFromErrors(_ kind: Kind) throws {
    try withDirectory(on: kind) { fileSystem, base in
      try fileSystem.open("\(base)/a", .create).write([1, 2, 3])
      #expect(try fileSystem.status("\(base)/a") == FileStatus(size: 3, isDirectory: false))
      #expect(try fileSystem.status(base)?.isDirectory == true)
      #expect(try fileSystem.status("\(base)/none") == nil)
      #expect(try fileSystem.status("\(base)/none/none") == nil)
      expect(errno: ENOTDIR) { _ = try fileSystem.status("\(base)/a/b") }
    }
  }

  @Test(arguments: Kind.allCases) func renameReplacesItsTarget(_ kind: Kind) throws {
    try withDirectory(on: kind) { fileSystem, base in
      try fileSystem.open("\(base)/a", .create).write([1])
      let old = try fileSystem.open("\(base)/b", .create)
      try old.write([2])
      try fileSystem.rename("\(base)/a", to: "\(base)/b")
      #expect(try fileSystem.list(base) == ["b"])
      #expect(try fileSystem.open("\(base)/b", .readOnly).read(1) == [1])
      #expect(try old.read(1) == [2], "an open handle stays with its file")
      expect(errno: ENOENT) { try fileSystem.rename("\(base)/a", to: "\(base)/c") }
      try fileSystem.rename("\(base)/b", to: "\(base)/b")
      #expect(try fileSystem.list(base) == ["b"])
      try fileSystem.syncDirectory(base)
    }
  }

  @Test(arguments: Kind.allCases) func directoriesAreRenamedAsAWhole(_ kind: Kind) throws {
    try withDirectory(on: kind) { fileSystem, base in
      try fileSystem.createDirectory("\(base)/new")
      _ = try fileSystem.open("\(base)/new/a", .create)
      try fileSystem.rename("\(base)/new", to: "\(base)/store")
      #expect(try fileSystem.list("\(base)/store") == ["a"])
      _ = try fileSystem.open("\(base)/file", .create)
      expect(errno: EISDIR) { try fileSystem.rename("\(base)/file", to: "\(base)/store") }
      expect(errno: ENOTDIR) { try fileSystem.rename("\(base)/store", to: "\(base)/file") }
      try fileSystem.createDirectory("\(base)/other")
      expect(errno: ENOTEMPTY) { try fileSystem.rename("\(base)/other", to: "\(base)/store") }
      try fileSystem.rename("\(base)/store", to: "\(base)/other")
      #expect(try fileSystem.list(base) == ["file", "other"])
    }
  }

  @Test(arguments: Kind.allCases) func removalTakesTheNameAlone(_ kind: Kind) throws {
    try withDirectory(on: kind) { fileSystem, base in
      let file = try fileSystem.open("\(base)/a", .create)
      try file.write([1])
      try fileSystem.remove("\(base)/a")
      #expect(try fileSystem.list(base) == [])
      #expect(try file.read(1) == [1])
      expect(errno: ENOENT) { try fileSystem.remove("\(base)/a") }
      try fileSystem.createDirectory("\(base)/d")
      #if os(Linux)
        expect(errno: EISDIR) { try fileSystem.remove("\(base)/d") }
      #endif
      expect(errno: ENOENT) { try fileSystem.syncDirectory("\(base)/none") }
    }
  }

  @Test(arguments: Kind.allCases) func aLockHasOneHolder(_ kind: Kind) throws {
    try withDirectory(on: kind) { fileSystem, base in
      let path = "\(base)/LOCK"
      let lock = try fileSystem.lock(path)
      let error = #expect(throws: SystemError.self) { try fileSystem.lock("\(base)/./LOCK") }
      #expect(error?.isLocked == true)
      // The refused attempt must not have released the lock of the holder.
      expect(errno: EAGAIN) { _ = try fileSystem.lock(path) }
      lock.release()
      lock.release()
      var dropped: (any FileLock)? = try fileSystem.lock(path)
      expect(errno: EAGAIN) { _ = try fileSystem.lock(path) }
      #expect(dropped != nil)
      dropped = nil
      let again = try fileSystem.lock(path)
      lock.release()
      expect(errno: EAGAIN) { _ = try fileSystem.lock(path) }
      again.release()
      #expect(try fileSystem.list(base) == ["LOCK"], "it is never removed")
    }
  }

  /// Threads write, read and sync one file each other's way, while one closes it in the middle.
  @Test(arguments: Kind.allCases) func threadsShareAFile(_ kind: Kind) throws {
    try withDirectory(on: kind) { fileSystem, base in
      let file = try fileSystem.open("\(base)/a", .create)
      let late = try fileSystem.open("\(base)/b", .create)
      let done = Atomic<Int>(0)
      let failures = Mutex<[CInt]>([])
      let threads = try (0..<4).map { index in
        try SystemThread(name: "writer \(index)") {
          do {
            for round in 0..<50 {
              let offset = UInt64(index * 50 + round) * 16
              try file.write(bytes(UInt8(index + 1), 16), at: offset)
              if try file.read(16, at: offset) == bytes(UInt8(index + 1), 16) {
                done.add(1, ordering: .relaxed)
              }
            }
            while true { try late.write([1]) }
          } catch {
            failures.withLock { $0.append((error as? SystemError)?.errno ?? 0) }
          }
        }
      }
      let closer = try SystemThread(name: "closer") {
        while done.load(ordering: .relaxed) < 200 && failures.withLock(\.isEmpty) {
          _ = try? file.size()
        }
        try? late.close()
      }
      for thread in threads { thread.join() }
      closer.join()
      #expect(done.load(ordering: .relaxed) == 200)
      #expect(failures.withLock { $0 } == [EBADF, EBADF, EBADF, EBADF])
      #expect(try file.size() == 3200)
    }
  }
}
