// SPDX-License-Identifier: Apache-2.0
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

/// The bytes that `write` puts into an empty buffer, or over `room` zeros.
func encoded(room: Int = 0, _ write: (CommitBuffer) -> Void) -> [UInt8] {
  let buffer = CommitBuffer(capacity: 8192)
  buffer.putZeros(room)
  write(buffer)
  return buffer.withBytes { $0.array }
}

func sampleFrame(_ kind: FrameHeader.Kind = .records) -> FrameHeader {
  FrameHeader(
    kind: kind, salt: 0x1122_3344_5566_7788, firstLSN: LSN(0x0102_0304_0506_0708), count: 3,
    bodyLength: 72, extent: 4096, previous: 0xdead_beef, durableLSN: LSN(0x0a0b_0c0d_0e0f_1011),
    offset: 8192, bodyChecksum: 0x8765_4321)
}

func sampleSegment() -> SegmentHeader {
  SegmentHeader(
    store: StoreID(high: 0x0102_0304_0506_0708, low: 0x1112_1314_1516_1718),
    salt: 0x2122_2324_2526_2728, firstLSN: LSN(0x3132_3334_3536_3738), ordinal: 0x4142_4344,
    previous: 0x5152_5354, capacity: 0x6162_6364)
}

func sampleStore() -> StoreFile {
  StoreFile(
    store: StoreID(high: 0x0102_0304_0506_0708, low: 0x1112_1314_1516_1718),
    keyHigh: 0x2122_2324_2526_2728, keyLow: 0x3132_3334_3536_3738,
    createdAt: 0x4142_4344_4546_4748)
}

func sampleHead() -> HeadSlot {
  HeadSlot(
    store: StoreID(high: 0x0102_0304_0506_0708, low: 0x1112_1314_1516_1718), ordinal: 0x4142_4344)
}

/// Gives the checksum at the end of `bytes` the value that the bytes before it have.
func resealed(_ bytes: [UInt8]) -> [UInt8] {
  var bytes = bytes
  let checksum = bytes.dropLast(4).array.withRaw { CRC32C.of($0) }
  for index in 0..<4 { bytes[bytes.count - 4 + index] = UInt8(checksum >> UInt32(8 * index) & 255) }
  return bytes
}

extension ArraySlice<UInt8> {
  var array: [UInt8] { Array(self) }
}

@Suite struct FrameHeaders {
  private func decode(_ bytes: [UInt8], at start: Int = 0) -> FrameHeader? {
    bytes.withRaw { FrameHeader($0, at: start) }
  }

  @Test(arguments: [FrameHeader.Kind.records, .heartbeat, .seal])
  func whatIsWrittenIsRead(_ kind: FrameHeader.Kind) throws {
    var checksum: UInt32 = 0
    let bytes = encoded(room: LogFormat.frameHeaderSize) {
      checksum = sampleFrame(kind).write(into: $0)
    }
    #expect(bytes.count == LogFormat.frameHeaderSize)
    var expected = sampleFrame(kind)
    expected.headerChecksum = checksum
    #expect(decode(bytes) == expected)
    #expect(decode([9, 9, 9] + bytes, at: 3) == expected)
  }

  @Test func everyFlippedBitIsRefused() {
    var bytes = encoded(room: LogFormat.frameHeaderSize) { _ = sampleFrame().write(into: $0) }
    for bit in 0..<bytes.count * 8 {
      bytes.flip(bit: bit)
      #expect(decode(bytes) == nil, "bit \(bit)")
      bytes.flip(bit: bit)
    }
  }

  @Test func aCutHeaderIsRefused() {
    let bytes = encoded(room: LogFormat.frameHeaderSize) { _ = sampleFrame().write(into: $0) }
    for length in 0..<bytes.count { #expect(decode(Array(bytes.prefix(length))) == nil) }
    #expect(decode(bytes, at: 1) == nil)
    #expect(decode(bytes, at: 64) == nil)
    #expect(decode(bytes, at: 65) == nil)
    #expect(decode(bytes, at: -1) == nil)
  }

  /// With a right checksum too: magic, version, kind and the two fields that must be zero.
  @Test(arguments: [
    (0, 0), (4, 0), (4, LogFormat.version + 1), (5, 0), (5, 4), (6, 1), (7, 1), (52, 1), (55, 1),
  ])
  func whatNoVersionWritesIsRefused(_ offset: Int, _ value: UInt8) {
    var bytes = encoded(room: LogFormat.frameHeaderSize) { _ = sampleFrame().write(into: $0) }
    bytes[offset] = value
    #expect(decode(resealed(bytes)) == nil)
  }

  @Test func version1IsRead() throws {
    var bytes = encoded(room: LogFormat.frameHeaderSize) { _ = sampleFrame().write(into: $0) }
    #expect(bytes[4] == LogFormat.version)
    bytes[4] = 1
    #expect(decode(resealed(bytes))?.firstLSN == sampleFrame().firstLSN)
  }

  @Test func zerosAreNoFrame() {
    #expect(decode([UInt8](repeating: 0, count: 64)) == nil)
  }
}

@Suite struct SegmentHeaders {
  private func decode(_ bytes: [UInt8]) throws(SegmentHeader.Failure) -> SegmentHeader {
    try bytes.withRaw { (raw) throws(SegmentHeader.Failure) in try SegmentHeader(raw) }
  }

  @Test func whatIsWrittenIsRead() throws {
    var checksum: UInt32 = 0
    let bytes = encoded { checksum = sampleSegment().write(into: $0) }
    #expect(bytes.count == LogFormat.segmentHeaderSize)
    var expected = sampleSegment()
    expected.checksum = checksum
    #expect(try decode(bytes) == expected)
    #expect(try decode(bytes + [1, 2, 3]) == expected)
  }

  @Test func everyFlippedBitIsRefused() {
    var bytes = encoded { _ = sampleSegment().write(into: $0) }
    for bit in 0..<bytes.count * 8 {
      bytes.flip(bit: bit)
      do throws(SegmentHeader.Failure) {
        _ = try decode(bytes)
        Issue.record("bit \(bit) was not seen")
      } catch {
        if error != .damaged { Issue.record("bit \(bit) was taken for another version") }
      }
      bytes.flip(bit: bit)
    }
  }

  @Test func aCutHeaderIsRefused() {
    let bytes = encoded { _ = sampleSegment().write(into: $0) }
    for length in [0, 1, 8, 12, 60, 512, 4092, 4095] {
      #expect(throws: SegmentHeader.Failure.damaged) { try decode(Array(bytes.prefix(length))) }
    }
  }

  @Test func version1IsRead() throws {
    var bytes = encoded { _ = sampleSegment().write(into: $0) }
    #expect(bytes[8] == LogFormat.version)
    bytes[8] = 1
    #expect(try decode(resealed(bytes)).version == 1)
  }

  @Test(arguments: [UInt32(0), UInt32(LogFormat.version) + 1, 0xffff_ffff])
  func anotherVersionIsNamed(_ version: UInt32) {
    var bytes = encoded { _ = sampleSegment().write(into: $0) }
    bytes.put((0..<4).map { UInt8(version >> UInt32(8 * $0) & 255) }, at: 8)
    #expect(throws: SegmentHeader.Failure.version(version)) { try decode(resealed(bytes)) }
  }

  @Test(arguments: [12, 15, 60, 1000, 4091]) func otherBytesThanZerosAreRefused(_ place: Int) {
    var bytes = encoded { _ = sampleSegment().write(into: $0) }
    bytes[place] = 1
    #expect(throws: SegmentHeader.Failure.damaged) { try decode(resealed(bytes)) }
  }
}

@Suite struct StoreFiles {
  private func decode(_ bytes: [UInt8]) throws(SegmentHeader.Failure) -> StoreFile {
    try bytes.withRaw { (raw) throws(SegmentHeader.Failure) in try StoreFile(raw) }
  }

  @Test func whatIsWrittenIsRead() throws {
    let bytes = encoded { sampleStore().write(into: $0) }
    #expect(bytes.count == StoreFile.size)
    #expect(try decode(bytes) == sampleStore())
  }

  @Test func everyFlippedBitIsRefused() {
    var bytes = encoded { sampleStore().write(into: $0) }
    for bit in 0..<bytes.count * 8 {
      bytes.flip(bit: bit)
      #expect(throws: SegmentHeader.Failure.damaged) { try decode(bytes) }
      bytes.flip(bit: bit)
    }
  }

  @Test func anotherLengthIsRefused() {
    let bytes = encoded { sampleStore().write(into: $0) }
    for length in 0..<bytes.count {
      #expect(throws: SegmentHeader.Failure.damaged) { try decode(Array(bytes.prefix(length))) }
    }
    #expect(throws: SegmentHeader.Failure.damaged) { try decode(bytes + [0]) }
  }

  @Test func version1IsRead() throws {
    var bytes = encoded { sampleStore().write(into: $0) }
    #expect(bytes[8] == LogFormat.version)
    bytes[8] = 1
    #expect(try decode(resealed(bytes)).version == 1)
  }

  @Test(arguments: [UInt32(0), UInt32(LogFormat.version) + 1, 0xffff_ffff])
  func anotherVersionIsNamed(_ version: UInt32) {
    var bytes = encoded { sampleStore().write(into: $0) }
    bytes.put((0..<4).map { UInt8(version >> UInt32(8 * $0) & 255) }, at: 8)
    #expect(throws: SegmentHeader.Failure.version(version)) { try decode(resealed(bytes)) }
  }

  @Test(arguments: [12, 15, 56, 59]) func otherBytesThanZerosAreRefused(_ place: Int) {
    var bytes = encoded { sampleStore().write(into: $0) }
    bytes[place] = 1
    #expect(throws: SegmentHeader.Failure.damaged) { try decode(resealed(bytes)) }
  }
}

@Suite struct HeadSlots {
  private func decode(_ bytes: [UInt8], at offset: Int = 0) -> HeadSlot? {
    bytes.withRaw { HeadSlot($0, at: offset) }
  }

  @Test func whatIsWrittenIsRead() {
    let bytes = encoded { sampleHead().write(into: $0) }
    #expect(bytes.count == HeadSlot.size)
    #expect(decode(bytes) == sampleHead())
    #expect(decode([9, 9, 9] + bytes, at: 3) == sampleHead())
  }

  @Test func everyFlippedBitIsRefused() {
    var bytes = encoded { sampleHead().write(into: $0) }
    for bit in 0..<bytes.count * 8 {
      bytes.flip(bit: bit)
      #expect(decode(bytes) == nil, "bit \(bit)")
      bytes.flip(bit: bit)
    }
  }

  @Test func aCutSlotAndZerosAreRefused() {
    let bytes = encoded { sampleHead().write(into: $0) }
    for length in 0..<bytes.count { #expect(decode(Array(bytes.prefix(length))) == nil) }
    #expect(decode(bytes, at: 1) == nil)
    #expect(decode(bytes, at: HeadSlot.size) == nil)
    #expect(decode(bytes, at: -1) == nil)
    #expect(decode([UInt8](repeating: 0, count: HeadSlot.size)) == nil)
  }

  @Test(arguments: [0, LogFormat.version + 1]) func anotherVersionIsRefused(_ version: UInt8) {
    var bytes = encoded { sampleHead().write(into: $0) }
    bytes[8] = version
    #expect(decode(resealed(bytes)) == nil)
  }

  /// A write that tears one slot leaves the other.
  @Test func theSlotsStandInSectorsOfTheirOwn() {
    #expect(HeadSlot.offset(0) == 0)
    #expect(HeadSlot.offset(1) == LogFormat.sectorSize)
    #expect(HeadSlot.fileSize == 2 * LogFormat.sectorSize)
  }
}

@Suite struct SegmentNames {
  @Test(arguments: [0, 1, 0x2a, 1 << 32, UInt64.max]) func aNameIsItsFirstLSN(_ value: UInt64) {
    let name = StoreFileName.segment(LSN(value))
    #expect(name.utf8.count == 20)
    #expect(StoreFileName.firstLSN(of: name) == LSN(value))
  }

  @Test(arguments: [
    "", ".seg", "1.seg", "000000000000002A.seg", "00000000000000002a.seg",
    "+00000000000002a.seg", "000000000000002a.seg ", "000000000000002a.seg.torn-1000",
    "000000000000002g.seg", "000000000000002a.next",
  ])
  func otherNamesAreNone(_ name: String) { #expect(StoreFileName.firstLSN(of: name) == nil) }

  @Test func namesSortByLSN() {
    let values: [UInt64] = [1, 9, 10, 255, 256, 4096, 1 << 40, .max]
    let names = values.map { StoreFileName.segment(LSN($0)) }
    #expect(names == names.sorted())
  }
}
