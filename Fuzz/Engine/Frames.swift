// SPDX-License-Identifier: Apache-2.0
import FuzzSupport
import PenstockCore
import PenstockLog
import PenstockSystem

/// The codecs: what they make of any bytes, with and without right checksums.
enum Frames {
  static func run(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    var input = Input(data, size)
    let choice = input.byte()
    let repairs = choice & 0x80 != 0
    switch choice % 7 {
    case 0: frameHeader(&input, repairs)
    case 1: segmentHeader(&input, repairs)
    case 2: storeFile(&input, repairs)
    case 3: payload(input.rest())
    case 4: programmedPayloads(&input)
    case 5: headSlot(&input, repairs)
    default: damagedHeader(&input)
    }
    return 0
  }

  private static func bytes(_ body: (CommitBuffer) -> Void) -> [UInt8] {
    let buffer = CommitBuffer(capacity: 4096)
    body(buffer)
    return buffer.withBytes { $0.array }
  }

  private static func frameHeader(_ input: inout Input, _ repairs: Bool) {
    let start = Int(Int8(bitPattern: input.byte()))
    var bytes = input.rest()
    if repairs, start >= 0, bytes.count >= start + 64 {
      bytes.replaceSubrange(start..<start + 5, with: [0x50, 0x46, 0x52, 0x4d, LogFormat.version])
      Repair.seal(&bytes, start..<start + 60, into: start + 60)
    }
    guard let header = bytes.withRaw({ FrameHeader($0, at: start) }),
      bytes[start + 4] == LogFormat.version
    else { return }
    let again = Self.bytes {
      $0.putZeros(LogFormat.frameHeaderSize)
      _ = header.write(into: $0)
    }
    check(again.elementsEqual(bytes[start..<start + 64]), "a frame header changes when rewritten")
  }

  private static func segmentHeader(_ input: inout Input, _ repairs: Bool) {
    var bytes: [UInt8]
    if repairs {
      bytes = Array("PNSCKSEG".utf8) + input.take(52)
      bytes += [UInt8](repeating: 0, count: LogFormat.segmentHeaderSize - bytes.count)
      while !input.isEmpty {
        bytes[Int(input.number(bytes: 2)) % bytes.count] = input.byte()
      }
      Repair.seal(
        &bytes, 0..<LogFormat.segmentHeaderSize - 4, into: LogFormat.segmentHeaderSize - 4)
    } else {
      bytes = input.rest()
    }
    do {
      let header = try bytes.withRaw { (raw) throws(SegmentHeader.Failure) in
        try SegmentHeader(raw)
      }
      // What an older version wrote is written again as this one.
      guard header.version == LogFormat.version else { return }
      let again = Self.bytes { _ = header.write(into: $0) }
      check(
        again.elementsEqual(bytes.prefix(LogFormat.segmentHeaderSize)),
        "a segment header changes when rewritten")
    } catch {}
  }

  private static func headSlot(_ input: inout Input, _ repairs: Bool) {
    var bytes = input.rest()
    if repairs {
      bytes = Array("PNSKHEAD".utf8) + [LogFormat.version] + bytes
      Repair.seal(&bytes, 0..<HeadSlot.size - 4, into: HeadSlot.size - 4)
    }
    guard let slot = bytes.withRaw({ HeadSlot($0, at: 0) }), bytes[8] == LogFormat.version else {
      return
    }
    check(
      Self.bytes { slot.write(into: $0) }.elementsEqual(bytes.prefix(HeadSlot.size)),
      "a slot of HEAD changes when rewritten")
  }

  private static func storeFile(_ input: inout Input, _ repairs: Bool) {
    var bytes = input.rest()
    if repairs {
      bytes = Array("PNSKSTOR".utf8) + bytes
      Repair.seal(&bytes, 0..<StoreFile.size - 4, into: StoreFile.size - 4)
    }
    do {
      let file = try bytes.withRaw { (raw) throws(SegmentHeader.Failure) in try StoreFile(raw) }
      guard file.version == LogFormat.version else { return }
      check(Self.bytes { file.write(into: $0) } == bytes, "a store file changes when rewritten")
    } catch {}
  }

  /// Everything that is read of a payload is written again and read as the same.
  private static func payload(_ bytes: [UInt8]) {
    let entry: Entry
    do { entry = try bytes.withRaw { (raw) throws(RecordError) in try Entry(raw) } } catch {
      return
    }
    if case .moved = entry.record {
      // What was copied follows it.
      let again = Self.bytes { entry.encode(into: $0) }
      check(bytes.starts(with: again), "a copy changes when rewritten: \(entry)")
      check(again.count == entry.payloadSize(), "a copy has another size than it says")
      _ = try? bytes.withRaw { (raw) throws(RecordError) in try StoredMessage(raw) }
      return
    }
    guard case .sent(let sent) = entry.record else {
      let again = Self.bytes { entry.encode(into: $0) }
      check(again == bytes, "a record changes when rewritten: \(entry)")
      check(again.count == entry.payloadSize(), "a record has another size than it says")
      return
    }
    let message: StoredMessage
    do {
      message = try bytes.withRaw { (raw) throws(RecordError) in try StoredMessage(raw) }
    } catch { return }
    check(message.id == sent.id && message.queue == entry.queue, "two readers disagree")
    let again = Self.bytes { entry.encode(message.content, into: $0) }
    check(again.count == entry.payloadSize(message.content), "a message has another size")
    do {
      let second = try again.withRaw { (raw) throws(RecordError) in try StoredMessage(raw) }
      check(second == message, "a message changes when rewritten")
    } catch { check(false, "a message cannot be read again: \(error)") }
  }

  private static func programmedPayloads(_ input: inout Input) {
    var program = EntryProgram(lsn: 1)
    for _ in 0..<64 where !input.isEmpty { payload(program.next(&input)) }
  }

  /// No header with one wrong bit is taken for a header.
  private static func damagedHeader(_ input: inout Input) {
    let bit = Int(input.number(bytes: 2)) % (8 * LogFormat.frameHeaderSize)
    let header = FrameHeader(
      kind: [.records, .heartbeat, .seal][input.below(3)], salt: input.number(bytes: 8),
      firstLSN: LSN(input.number(bytes: 8)), count: UInt32(input.number(bytes: 4)),
      bodyLength: UInt32(input.number(bytes: 4)), extent: UInt32(input.number(bytes: 4)),
      previous: UInt32(input.number(bytes: 4)), durableLSN: LSN(input.number(bytes: 8)),
      offset: UInt32(input.number(bytes: 4)), bodyChecksum: UInt32(input.number(bytes: 4)))
    var bytes = Self.bytes {
      $0.putZeros(LogFormat.frameHeaderSize)
      _ = header.write(into: $0)
    }
    var read = bytes.withRaw { FrameHeader($0, at: 0) }
    check(read != nil, "a header that was written is refused")
    read?.headerChecksum = 0
    check(read == header, "a header reads as another")
    bytes[bit / 8] ^= 1 << UInt8(bit % 8)
    check(
      bytes.withRaw { FrameHeader($0, at: 0) } == nil, "a header with bit \(bit) wrong is taken")
  }
}
