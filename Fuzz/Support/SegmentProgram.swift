// SPDX-License-Identifier: Apache-2.0
package import PenstockLog
internal import PenstockSystem

/// Where a segment continues the one before it.
package struct SegmentStart {
  package var store: StoreID
  package var firstLSN: UInt64
  package var ordinal: UInt32
  /// Chain value of the seal before.
  package var previous: UInt32

  package init(store: StoreID, firstLSN: UInt64, ordinal: UInt32, previous: UInt32) {
    self.store = store
    self.firstLSN = firstLSN
    self.ordinal = ordinal
    self.previous = previous
  }
}

/// Writes a segment as an input says: frames that follow from each other with right checksums,
/// but for what the input bends. No fuzzer guesses a checksum, so the harness makes them.
package struct SegmentProgram {
  package private(set) var bytes: [UInt8] = []
  /// What the next segment must continue.
  package private(set) var next: SegmentStart
  private var entries: EntryProgram
  private let salt: UInt64
  private var chain: UInt32 = 0
  private var records: UInt64 = 0
  /// LSN up to which the frames so far end on a sector.
  private var aligned: UInt64

  static let maximumSize = 48 * 1024

  /// Runs the program until the input or the room ends, or a seal was written.
  package init(_ input: inout Input, at start: SegmentStart) {
    next = start
    salt = 0x5a17 &+ UInt64(start.ordinal)
    entries = EntryProgram(lsn: start.firstLSN)
    aligned = start.firstLSN - 1
    writeHeader(&input)
    while !input.isEmpty, bytes.count < Self.maximumSize {
      if writeFrame(&input) { break }
    }
    finish(&input)
    next.firstLSN = entries.lsn
    next.ordinal &+= 1
    next.previous = chain
  }

  private mutating func writeHeader(_ input: inout Input) {
    var header = SegmentHeader(
      store: next.store, salt: salt, firstLSN: LSN(next.firstLSN), ordinal: next.ordinal,
      previous: next.previous, capacity: 64 * 1024)
    // One program in sixteen begins with a header that is whole and wrong.
    switch input.byte() {
    case 240...242: header.firstLSN = LSN(UInt64(bitPattern: input.awkward()))
    case 243...245: header.ordinal = UInt32(truncatingIfNeeded: input.awkward())
    case 246...248: header.previous = UInt32(truncatingIfNeeded: input.awkward())
    case 249...251: header.capacity = UInt32(truncatingIfNeeded: input.awkward())
    case 252: header.store.low &+= 1
    default: break
    }
    let buffer = CommitBuffer(capacity: LogFormat.segmentHeaderSize)
    chain = header.write(into: buffer)
    bytes = buffer.withBytes { $0.array }
  }

  /// Writes one frame; true after a seal.
  private mutating func writeFrame(_ input: inout Input) -> Bool {
    let choice = input.byte()
    let kind: FrameHeader.Kind =
      switch choice & 3 {
      case 0, 1: .records
      case 2: .heartbeat
      default: .seal
      }
    let first = entries.lsn
    var count: UInt32 = 0
    let body = CommitBuffer(capacity: 4096)
    if kind == .records {
      count = 1 + UInt32(choice >> 2 & 3)
      for _ in 0..<count { Self.put(entries.next(&input), on: body) }
    } else if kind == .seal {
      let size = roundUp(bytes.count + 88, to: LogFormat.sectorSize)
      body.put(records)
      body.put(first &- 1)
      body.put(UInt64(size))
    }
    let isAligned = choice & 16 != 0 || kind == .seal
    let length = LogFormat.frameHeaderSize + body.count
    let unit = isAligned ? LogFormat.sectorSize : LogFormat.frameAlignment
    let extent = roundUp(bytes.count + length, to: unit) - bytes.count
    // A seal comes after a sync of everything.
    let durable = kind == .seal ? first &- 1 : choice & 32 != 0 ? 0 : aligned
    let header = FrameHeader(
      kind: kind, salt: salt, firstLSN: LSN(first), count: count,
      bodyLength: UInt32(body.count), extent: UInt32(extent), previous: chain,
      durableLSN: LSN(durable), offset: UInt32(bytes.count), bodyChecksum: 0)
    append(header, body.withBytes { $0.array }, isBent: choice & 0xc0 == 0xc0, &input)
    records += UInt64(count)
    if isAligned { aligned = entries.lsn - 1 }
    return kind == .seal
  }

  /// Puts a frame behind the others, with its checksums.
  private mutating func append(
    _ header: FrameHeader, _ body: [UInt8], isBent: Bool, _ input: inout Input
  ) {
    var header = header
    var body = body
    var padding = [UInt8](
      repeating: 0, count: Int(header.extent) - LogFormat.frameHeaderSize - body.count)
    var flippedBit: Int?
    if isBent {
      switch input.below(16) {
      case 0: header.salt &+= 1
      case 1: header.firstLSN = LSN(UInt64(bitPattern: input.awkward()))
      case 2: header.count = UInt32(truncatingIfNeeded: input.awkward())
      case 3: header.bodyLength = UInt32(truncatingIfNeeded: input.awkward())
      case 4: header.extent = UInt32(truncatingIfNeeded: input.awkward()) &* 64
      case 5: header.extent = UInt32(truncatingIfNeeded: input.awkward())
      case 6: header.previous ^= UInt32(truncatingIfNeeded: input.awkward())
      case 7: header.durableLSN = LSN(UInt64(bitPattern: input.awkward()))
      case 8: header.offset &+= UInt32(truncatingIfNeeded: input.awkward())
      case 9: flippedBit = Int(input.number(bytes: 2))
      case 10: body = input.take(Int(input.byte()))
      case 11: if !body.isEmpty { body[input.below(body.count % 256 + 1) % body.count] ^= 1 }
      case 12:
        if !padding.isEmpty {
          padding[Int(input.number(bytes: 2)) % padding.count] = input.byte() | 1
        }
      case 13: padding.removeAll()
      // A hole, or another frame's leftovers, before this frame.
      case 14: bytes += [UInt8](repeating: 0, count: 64 * input.below(80))
      default: bytes += Self.padded(input.take(Int(input.byte())))
      }
      if header.bodyLength == 0 || header.bodyLength > UInt32(body.count) {
        if input.below(2) == 0 { header.bodyLength = UInt32(body.count) }
      }
      if input.below(2) == 0, header.offset != UInt32(bytes.count) {
        header.offset = UInt32(bytes.count)
      }
    }
    let covered = Array((body + padding).prefix(Int(header.bodyLength)))
    header.bodyChecksum = covered.withRaw { CRC32C.of($0) }
    let buffer = CommitBuffer(capacity: 4096)
    buffer.putZeros(LogFormat.frameHeaderSize)
    chain = header.write(into: buffer)
    var frame = buffer.withBytes { $0.array } + body + padding
    if let flippedBit { frame[flippedBit / 8 % frame.count] ^= 1 << UInt8(flippedBit % 8) }
    bytes += frame
  }

  /// What stands behind the last frame: nothing, or room for more, or what a crash left there.
  private mutating func finish(_ input: inout Input) {
    switch input.below(8) {
    case 1: bytes += [UInt8](repeating: 0, count: LogFormat.sectorSize)
    case 2: bytes += Self.padded(input.take(64))
    case 3: bytes.removeLast(min(bytes.count, Int(input.number(bytes: 2))))
    default: break
    }
  }

  private static func put(_ payload: [UInt8], on body: CommitBuffer) {
    let start = body.count
    body.put(UInt32(0))
    body.put(UInt32(payload.count))
    body.put(payload)
    let checksum = body.withBytes(start + 4..<body.count) { CRC32C.of($0) }
    body.set(checksum, at: start)
    body.putZeros(roundUp(body.count, to: LogFormat.recordAlignment) - body.count)
  }

  private static func padded(_ bytes: [UInt8]) -> [UInt8] {
    let size = roundUp(bytes.count, to: LogFormat.frameAlignment)
    return bytes + [UInt8](repeating: 0, count: size - bytes.count)
  }
}
