// SPDX-License-Identifier: Apache-2.0
import FuzzSupport
import PenstockLog
import PenstockSystem
import PenstockTesting

/// A directory with anything in it: files of a real store, cut, flipped, swapped, renamed and
/// repaired as the input says, and strangers beside them.
struct DirectoryEdits {
  var input: Input
  let disk: SimulatedFileSystem

  static func run(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    var input = Input(data, size)
    let choice = input.byte()
    let disk = RecoveryBase.disks[Int(choice & 0x7f) % RecoveryBase.disks.count].copy()
    disk.kill()
    var edits = DirectoryEdits(input: input, disk: disk)
    for _ in 0..<32 where !edits.input.isEmpty { edits.editOnce() }
    Opening.examine(disk, goesOn: choice & 0x80 != 0)
    return 0
  }

  private func path(_ name: String) -> String { Opening.path(name) }

  /// The names there are.
  private var names: [String] {
    do { return try disk.list(Opening.directory) } catch { return [] }
  }

  /// A file that is there; the newest segment is the likeliest.
  private mutating func present() -> String {
    let names = self.names
    let choice = input.byte()
    if choice < 96, let newest = names.last(where: { StoreFileName.firstLSN(of: $0) != nil }) {
      return newest
    }
    return names.isEmpty ? StoreFileName.store : names[Int(choice) % names.count]
  }

  /// A name that a store knows, or one near it, or none of its business.
  private mutating func anyName() -> String {
    let number = UInt64(bitPattern: input.awkward())
    let segment = StoreFileName.segment(LSN(number))
    switch input.below(14) {
    case 0, 1, 2: return segment
    case 3: return String(segment.dropLast(4)) + StoreFileName.preparedSuffix
    case 4: return String(segment.dropLast(4)) + StoreFileName.partialSuffix
    case 5: return segment + StoreFileName.evidenceMark + String(number & 0xffff, radix: 16)
    case 6: return StoreFileName.store
    case 7: return StoreFileName.newStore
    case 8: return StoreFileName.lock
    case 9: return "lost+found"
    case 10: return segment.uppercased()
    case 11: return String(segment.dropFirst())
    default:
      let text = input.take(12).map { $0 == UInt8(ascii: "/") || $0 == 0 ? UInt8(ascii: "x") : $0 }
      let name = String(decoding: text, as: UTF8.self)
      return name.isEmpty || name == "." || name == ".." ? "stranger" : name
    }
  }

  /// A place in a file of this size: near a sector or a frame as often as anywhere.
  private mutating func place(_ size: Int) -> Int {
    let value = Int(input.number(bytes: 2))
    let scaled = value & 1 == 0 ? (value >> 1) &* 64 : value >> 1
    return size == 0 ? 0 : scaled % (size + 1)
  }

  private mutating func edit(_ change: (inout [UInt8], inout DirectoryEdits) -> Void) {
    let name = path(present())
    guard var bytes = disk.contents(of: name), bytes.count <= 1 << 18 else { return }
    change(&bytes, &self)
    disk.replace(name, with: bytes)
  }

  private mutating func editOnce() {
    let choice = input.byte()
    switch choice % 18 {
    case 0:
      edit { bytes, edits in
        let end = edits.place(bytes.count)
        bytes.removeLast(bytes.count - end)
      }
    case 1:
      edit { bytes, edits in
        let at = edits.place(bytes.count)
        let bit = UInt8(edits.input.below(8))
        if at < bytes.count { bytes[at] ^= 1 << bit }
      }
    case 2:
      edit { bytes, edits in
        let at = edits.place(bytes.count)
        let end = min(bytes.count, at + Int(edits.input.number(bytes: 2)))
        bytes.replaceSubrange(at..<end, with: repeatElement(0, count: end - at))
      }
    case 3:
      let source = path(present())
      if let bytes = disk.contents(of: source) { disk.replace(path(anyName()), with: bytes) }
    case 4:
      let (a, b) = (path(present()), path(present()))
      if let first = disk.contents(of: a), let second = disk.contents(of: b) {
        disk.replace(a, with: second)
        disk.replace(b, with: first)
      }
    case 5:
      let (source, target) = (path(present()), path(anyName()))
      if source != target, let bytes = disk.contents(of: source) {
        disk.erase(source)
        disk.replace(target, with: bytes)
      }
    case 6:
      let name = path(anyName())
      disk.replace(name, with: input.take(Int(input.byte())))
    case 7: disk.erase(path(present()))
    case 8:
      edit { bytes, edits in
        let at = edits.place(bytes.count)
        let fresh = edits.input.take(edits.input.below(32) + 1)
        bytes.replaceSubrange(at..<min(bytes.count, at + fresh.count), with: fresh)
      }
    case 9, 10: edit { bytes, edits in Self.setField(&bytes, &edits.input) }
    case 11:
      edit { bytes, edits in
        Repair.segment(&bytes, chaining: edits.input.below(2) == 0)
      }
    case 12, 13: appendSegment()
    case 14:
      let name = path(anyName())
      do { try disk.createDirectory(name) } catch {}
    case 15:
      edit { bytes, edits in
        let fresh = edits.input.take(Int(edits.input.byte()))
        bytes += fresh.isEmpty ? [UInt8](repeating: 0, count: 64 * edits.input.below(256)) : fresh
      }
    case 16: edit { bytes, edits in Self.copySector(&bytes, &edits.input) }
    default:
      // STORE with its checksum made right.
      let name = path(StoreFileName.store)
      guard var bytes = disk.contents(of: name), bytes.count == StoreFile.size else { return }
      let at = input.below(StoreFile.size)
      bytes[at] = input.byte()
      Repair.seal(&bytes, 0..<StoreFile.size - 4, into: StoreFile.size - 4)
      disk.replace(name, with: bytes)
    }
  }

  /// Changes one field of a segment header or of a frame, and makes its own checksums right.
  private static func setField(_ bytes: inout [UInt8], _ input: inout Input) {
    let frames = Repair.frames(of: bytes)
    let choice = input.byte()
    let value = UInt64(bitPattern: input.awkward())
    guard choice < 224, !frames.isEmpty else {
      guard bytes.count >= LogFormat.segmentHeaderSize else { return }
      bytes.setWord(UInt32(truncatingIfNeeded: value), at: 4 * (Int(choice) % 16))
      let end = LogFormat.segmentHeaderSize - 4
      return Repair.seal(&bytes, 0..<end, into: end)
    }
    let frame = frames[Int(choice) % frames.count]
    let fields = [(5, 1), (8, 8), (16, 8), (24, 4), (28, 4), (32, 4), (36, 4), (40, 8), (48, 4)]
    let (offset, size) = fields[input.below(fields.count)]
    for place in 0..<size {
      bytes[frame + offset + place] = UInt8(truncatingIfNeeded: value >> UInt64(8 * place))
    }
    Repair.frame(&bytes, at: frame)
  }

  private static func copySector(_ bytes: inout [UInt8], _ input: inout Input) {
    let sectors = bytes.count / LogFormat.sectorSize
    guard sectors > 0 else { return }
    let (source, target) = (input.below(256) % sectors, input.below(256) % sectors)
    let size = LogFormat.sectorSize
    let copy = Array(bytes[source * size..<(source + 1) * size])
    bytes.replaceSubrange(target * size..<(target + 1) * size, with: copy)
  }

  /// Puts a segment behind the newest one that continues it, if that one ends with a seal.
  private mutating func appendSegment() {
    guard let name = names.last(where: { StoreFileName.firstLSN(of: $0) != nil }),
      let bytes = disk.contents(of: path(name)), let seal = Repair.frames(of: bytes).last
    else { return }
    func number(_ offset: Int) -> UInt64 {
      UInt64(bytes.word(offset)) | UInt64(bytes.word(offset + 4)) << 32
    }
    let last = number(seal + 16) &+ UInt64(bytes.word(seal + 24))
    let start = SegmentStart(
      store: StoreID(high: number(16), low: number(24)), firstLSN: max(last, 1),
      ordinal: bytes.word(48) &+ 1, previous: bytes.word(seal + 60))
    var part = Input(input.take(Int(input.byte())))
    let program = SegmentProgram(&part, at: start)
    disk.replace(path(StoreFileName.segment(LSN(start.firstLSN))), with: program.bytes)
  }
}
