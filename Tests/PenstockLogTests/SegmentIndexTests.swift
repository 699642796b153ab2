// SPDX-License-Identifier: Apache-2.0
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

private let store = StoreID(high: 0x0102_0304_0506_0708, low: 0x1112_1314_1516_1718)

/// An index, what was put into it, and its file.
private struct Sample {
  var index = SegmentIndex()
  var all: [(queue: UInt32, entry: WaitingMessage)] = []

  /// Sends in the order of their LSNs and rows of copies of earlier messages between them, as a
  /// segment that takes both has them. No message is in it twice.
  init(_ random: StableRandom, count: Int, queues: Int) {
    var offset: UInt32 = 4096
    var send: UInt64 = 1_000_000 + UInt64(random.below(1000))
    var copies = [UInt64](repeating: 1, count: queues)
    var used: Set<[UInt64]> = []
    for _ in 0..<count {
      let queue = random.below(queues)
      let isCopy = random.chance(1, of: 3)
      let message: UInt64
      if isCopy {
        // Most rows ascend; now and then a new one begins.
        if random.chance(1, of: 40) { copies[queue] = UInt64(1 + random.below(900)) }
        copies[queue] += UInt64(1 + random.below(3))
        message = copies[queue]
      } else {
        send += UInt64(1 + random.below(random.chance(1, of: 9) ? 1 << 30 : 3))
        message = send
      }
      guard used.insert([UInt64(queue), message]).inserted else { continue }
      let size = UInt32(8 * (6 + random.below(random.chance(1, of: 9) ? 1 << 17 : 40)))
      let entry = WaitingMessage(
        message: message, offset: offset, size: size,
        sentSecond: random.chance(1, of: 9)
          ? UInt32(truncatingIfNeeded: random.next()) : 1_700_000_000 + UInt32(random.below(9)))
      offset = (offset &+ size) & 0x3fff_fff8
      index.append(entry, queue: UInt32(queue * 7), isCopy: isCopy)
      all.append((UInt32(queue * 7), entry))
    }
  }

  /// What an array says.
  func expected(
    _ queue: UInt32, _ first: UInt64, _ last: UInt64, _ limit: Int
  ) -> [WaitingMessage] {
    let found = all.filter { $0.queue == queue && (first...last).contains($0.entry.message) }
      .map(\.entry).sorted { $0.message < $1.message }
    return Array(found.prefix(limit))
  }

  func bytes(ordinal: UInt32 = 5) -> [UInt8] {
    index.encode(store: store, ordinal: ordinal).withBytes { $0.array }
  }
}

/// Bytes as an open index file.
private struct Opened {
  let disk = SimulatedFileSystem()

  init() throws { try disk.createDirectory(directory) }

  func open(
    _ bytes: [UInt8], store: StoreID = store, ordinal: UInt32 = 5
  ) throws -> SegmentIndexFile? {
    disk.replace(path("index"), with: bytes)
    return try SegmentIndexFile(
      try disk.open(path("index"), .readOnly), store: store, ordinal: ordinal)
  }
}

@Suite struct SegmentIndexes {
  /// Ranges around what is there, of many lengths, with small and large limits.
  private func ranges(
    _ sample: Sample, _ random: StableRandom, _ count: Int
  ) -> [(UInt32, UInt64, UInt64, Int)] {
    (0..<count).map { _ in
      let any = sample.all.isEmpty ? 5 : sample.all[random.below(sample.all.count)].entry.message
      let other = sample.all.isEmpty ? 9 : sample.all[random.below(sample.all.count)].entry.message
      let first = random.chance(1, of: 5) ? 0 : min(any, other) + UInt64(random.below(3)) - 1
      let last = random.chance(1, of: 5) ? .max : max(any, other) + UInt64(random.below(3)) - 1
      return (
        UInt32(random.below(5) * 7), min(first, last), max(first, last),
        [1, 2, 10, 256, 1000, .max][random.below(6)]
      )
    }
  }

  /// The file and the memory answer what an array answers.
  @Test(arguments: 0..<24) func answerAsAnArray(seed: Int) throws {
    let random = StableRandom(seed: UInt64(seed))
    let counts = [0, 1, 2, 255, 256, 257, 512, 513, 1500, 4000]
    let sample = Sample(
      random, count: counts[seed % counts.count], queues: 1 + random.below(4))
    #expect(sample.index.isEmpty == sample.all.isEmpty)
    let file = try #require(try Opened().open(sample.bytes()))
    for (queue, first, last, limit) in ranges(sample, random, 200) {
      let expected = sample.expected(queue, first, last, limit)
      #expect(
        sample.index.entries(queue: queue, from: first, through: last, limit: limit) == expected)
      #expect(
        try file.entries(queue: queue, from: first, through: last, limit: limit) == expected)
    }
  }

  @Test func isOfOneSegmentOfOneStore() throws {
    let bytes = Sample(StableRandom(seed: 1), count: 9, queues: 2).bytes()
    #expect(try Opened().open(bytes) != nil)
    #expect(try Opened().open(bytes, ordinal: 6) == nil)
    #expect(try Opened().open(bytes, store: StoreID(high: 1, low: 2)) == nil)
  }

  /// All queues' answers; nil when the file is refused, or a block of it.
  private func answers(_ file: SegmentIndexFile?) throws -> [[WaitingMessage]]? {
    guard let file else { return nil }
    var all: [[WaitingMessage]] = []
    for queue in UInt32(0)..<30 {
      let found = try file.entries(queue: queue, from: 0, through: .max, limit: .max)
      guard let found else { return nil }
      all.append(found)
    }
    return all
  }

  @Test func everyFlippedBitIsNoticed() throws {
    let opened = try Opened()
    var bytes = Sample(StableRandom(seed: 2), count: 60, queues: 3).bytes()
    #expect(try answers(try opened.open(bytes)) != nil)
    for bit in 0..<bytes.count * 8 {
      bytes.flip(bit: bit)
      #expect(try answers(try opened.open(bytes)) == nil, "bit \(bit)")
      bytes.flip(bit: bit)
    }
  }

  @Test func everyCutIsNoticed() throws {
    let opened = try Opened()
    let bytes = Sample(StableRandom(seed: 3), count: 700, queues: 3).bytes()
    for length in stride(from: 0, to: bytes.count, by: 3) {
      #expect(try answers(try opened.open(Array(bytes.prefix(length)))) == nil, "\(length) bytes")
    }
  }

  /// With a right checksum over head and tables: numbers that overflow something, at any place.
  @Test(arguments: 0..<8) func hostileBytesNeverTrap(seed: Int) throws {
    let random = StableRandom(seed: UInt64(100 + seed))
    let opened = try Opened()
    let sample = Sample(random, count: 300, queues: 3)
    let bytes = sample.bytes()
    let (strips, blocks) = (Int(bytes.u32(at: 32)), Int(bytes.u32(at: 36)))
    let tables = 48 + strips * 8 + blocks * 32
    for _ in 0..<400 {
      var changed = bytes
      for _ in 0...random.below(3) {
        let length = [1, 4, 8][random.below(3)]
        // Most in the tables, a part in the blocks' bytes.
        let place = random.below((random.chance(3, of: 4) ? tables : bytes.count) - 8)
        let byte = [UInt8(0), 255, 127, 128, 1][random.below(5)]
        for index in place..<place + length { changed[index] = byte }
      }
      repair(&changed)
      guard let file = try opened.open(changed) else { continue }
      for (queue, first, last, limit) in ranges(sample, random, 4) {
        let found = try file.entries(queue: queue, from: first, through: last, limit: limit)
        #expect(found.map { $0.count <= limit } ?? true)
      }
    }
  }

  /// Makes the checksum of head and tables right, as far as their numbers lead, and of each block.
  private func repair(_ bytes: inout [UInt8]) {
    let (strips, blocks) = (Int(bytes.u32(at: 32)), Int(bytes.u32(at: 36)))
    let end = 48 + strips * 8 + blocks * 32
    guard end <= bytes.count else { return }
    func set(_ value: UInt32, _ place: Int) {
      bytes.put((0..<4).map { UInt8(value >> (8 * UInt32($0)) & 255) }, at: place)
    }
    var offset = end
    for block in 0..<blocks {
      let entry = 48 + strips * 8 + block * 32
      let length = Int(bytes.u32(at: entry + 20))
      guard offset + length <= bytes.count else { break }
      set(Array(bytes[offset..<offset + length]).withRaw { CRC32C.of($0) }, entry + 24)
      offset += length
    }
    set(0, 40)
    set(Array(bytes[..<end]).withRaw { CRC32C.of($0) }, 40)
  }

  /// Counts in the head must not decide how much memory is taken.
  @Test func hostileCountsAreRefused() throws {
    let counts: [(UInt32, UInt32)] = [(.max, 0), (0, .max), (.max, .max), (1, 0x7ff)]
    for (strips, blocks) in counts {
      var bytes = Sample(StableRandom(seed: 4), count: 9, queues: 2).bytes()
      for (value, place) in [(strips, 32), (blocks, 36)] {
        bytes.put((0..<4).map { UInt8(value >> (8 * UInt32($0)) & 255) }, at: place)
      }
      #expect(try Opened().open(bytes) == nil)
    }
  }
}
