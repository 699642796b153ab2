// SPDX-License-Identifier: Apache-2.0
import PenstockSystem
import PenstockTesting
import Synchronization
import Testing

@testable import PenstockLog

@Suite struct ReadWindows {
  let disk = SimulatedFileSystem()

  @Test func recordsThatStandTogetherAreReadTogether() throws {
    var session = try newLog(disk)
    let places = try (0..<40).map { try session.append(payload($0, size: 1000)).position }
    try session.commit()
    try session.log.seal()
    session.log.close()
    var calls = 0
    let watched = WatchedFileSystem(disk, beforeRead: { calls += 1 })
    let again = try open(watched, seed: 2)
    var window = ReadWindow()
    calls = 0
    for (number, place) in places.enumerated() {
      let found = try again.log.read(place, &window) { $0.array }
      #expect(found == payload(number, size: 1000))
    }
    // One of a sector, then two of 64 KiB at most.
    #expect(calls <= 3, "\(calls) reads of 40 records")
    calls = 0
    // Those far from each other are read one by one, in small pieces.
    for place in [places[30], places[2], places[20]] {
      #expect(try again.log.read(place, &window) { $0.byteCount } == 1000)
    }
    #expect(calls <= 3)
  }

  /// Reads near each other take what is not written yet with them.
  @Test(arguments: [0, 4 << 20]) func whatWasReadTooEarlyIsReadAgain(_ recentBytes: Int) throws {
    var session = try open(disk, recentBytes: recentBytes)
    try session.prepare()
    var window = ReadWindow()
    for number in 1..<50 {
      if number.isMultiple(of: 8) { try session.prepare() }
      let place = try session.append(payload(number, size: number * 7)).position
      try session.commit()
      #expect(
        try session.log.read(place, &window) { $0.array } == payload(number, size: number * 7))
    }
  }

  @Test func whatIsWrongInMemoryIsReadFromTheFile() throws {
    var session = try newLog(disk)
    let place = try session.append(payload(1, size: 100)).position
    try session.commit()
    let wrong = CommitBuffer(capacity: 0)
    wrong.put([UInt8](repeating: 7, count: 200))
    session.log.recent.withLock {
      _ = $0.keep(wrong, segment: place.segment, at: Int(place.offset))
    }
    var window = ReadWindow()
    #expect(try session.log.read(place, &window) { $0.array } == payload(1, size: 100))
    #expect(try session.log.read(place, &window) { $0.array } == payload(1, size: 100))
  }

  @Test func aRecordLargerThanTheWindowIsReadWhole() throws {
    var session = try open(disk, segmentSize: 1 << 20)
    try session.prepare()
    let size = ReadWindow.most + 5000
    let place = try session.append(payload(1, size: size)).position
    try session.commit()
    disk.kill()
    let again = try open(disk, segmentSize: 1 << 20)
    var window = ReadWindow()
    #expect(try again.log.read(place, &window) { $0.array } == payload(1, size: size))
  }
}

@Suite struct RecentFrameTests {
  let most = 4 << 20

  /// A buffer with so many bytes of a value.
  func frame(_ value: UInt8, _ count: Int, capacity: Int = 0) -> CommitBuffer {
    let buffer = CommitBuffer(capacity: max(count, capacity))
    buffer.put([UInt8](repeating: value, count: count))
    return buffer
  }

  func read(_ recent: borrowing RecentFrames, _ segment: UInt32, _ offset: Int) -> [UInt8] {
    let buffer = CommitBuffer(capacity: 0)
    recent.read(LogPosition(segment: segment, offset: UInt32(offset)), 8, into: buffer)
    return buffer.withBytes { $0.array }
  }

  @Test func smallAndLargeFramesAreFoundWhereTheyStand() {
    var recent = RecentFrames(most: most)
    let small = frame(1, 100)
    #expect(recent.keep(small, segment: 2, at: 4096) === small, "a small one is copied")
    _ = recent.keep(frame(2, 60), segment: 2, at: 4196)
    let large = frame(3, RecentFrames.large)
    #expect(recent.keep(large, segment: 2, at: 4256) !== large, "a large one stays")
    _ = recent.keep(frame(4, 50), segment: 3, at: 4096)
    #expect(read(recent, 2, 4096) == [UInt8](repeating: 1, count: 8))
    #expect(read(recent, 2, 4192) == [1, 1, 1, 1, 2, 2, 2, 2])
    #expect(read(recent, 2, 4252) == [2, 2, 2, 2], "up to the end of its run")
    #expect(read(recent, 2, 5000) == [UInt8](repeating: 3, count: 8))
    #expect(read(recent, 3, 4140) == [UInt8](repeating: 4, count: 6))
    for (segment, offset) in [(2, 4095), (2, 4256 + RecentFrames.large), (3, 4146), (4, 4096)] {
      #expect(read(recent, UInt32(segment), offset) == [], "\(segment) \(offset)")
    }
  }

  @Test func memoryIsBoundedAndUsedAgain() {
    var recent = RecentFrames(most: most)
    let sizes = [70_000, 300, 128 << 10, 3 << 20, 40, 5 << 20, 1 << 20, 2_000]
    var (offset, spares) = (4096, 0)
    var next = frame(0, 0)
    var kept: [ObjectIdentifier: CommitBuffer] = [:]
    var newest: [(value: UInt8, offset: Int, size: Int)] = []
    for round in 0..<400 {
      let size = sizes[round % sizes.count]
      // Some buffers are twice as large as their frame, as they are when they have grown.
      if size > next.capacity || next.capacity > 4 * size {
        next = frame(0, 0, capacity: 2 * size)
      }
      next.removeAll()
      next.put([UInt8](repeating: UInt8(round % 251), count: size))
      let back = recent.keep(next, segment: 2, at: offset)
      if back !== next {
        kept[ObjectIdentifier(next)] = next
        if kept[ObjectIdentifier(back)] != nil { spares += 1 }
        // Nobody reads from a buffer that is filled again.
        back.removeAll()
        back.put([UInt8](repeating: 255, count: 64))
      }
      #expect(recent.memory <= most, "round \(round)")
      newest.append((UInt8(round % 251), offset, size))
      offset += size
      next = back
    }
    #expect(spares > 20, "buffers are used again")
    var found = 0
    for frame in newest.suffix(sizes.count) {
      let bytes = read(recent, 2, frame.offset)
      #expect(bytes.isEmpty || bytes == [UInt8](repeating: frame.value, count: 8))
      if !bytes.isEmpty { found += 1 }
    }
    #expect(found >= 2, "the newest are there")
  }

  @Test(arguments: [0, 1, 100_000]) func littleMemoryIsNone(_ most: Int) {
    var recent = RecentFrames(most: most)
    _ = recent.keep(frame(1, 100), segment: 2, at: 4096)
    #expect(recent.memory == 0)
    #expect(read(recent, 2, 4096) == [])
  }
}
