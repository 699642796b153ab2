// SPDX-License-Identifier: Apache-2.0
internal import PenstockLog
internal import PenstockSystem

/// The file `BACKUP` in a backup: what is in it, and what was verified. Written last and
/// atomically, so a backup that was cut short is known by the one before it.
///
/// **Layout**: lines of words: `penstock-backup 1`, `store ID`, one `file NAME BYTES CRC32C` for
/// each file, or `damaged …` if the store had it damaged already, one
/// `point LSN MILLISECONDS STATEHASH` for each backup that was made here, oldest first, and
/// `end CRC32C` of all bytes before that line. Numbers are decimal, hashes and checksums
/// hexadecimal.
struct Manifest {
  static let name = "BACKUP"
  /// Locked by the backup that is being made; made first, so it marks one that was cut short.
  static let lock = "BACKUP.lock"
  static let names = [name, lock]

  struct File: Hashable {
    var size: UInt64
    var checksum: UInt32
    /// Whether it was damaged in the store already.
    var isDamaged = false
  }

  /// A backup: the state at its LSN, and when it was made.
  struct Point: Hashable {
    var lsn: UInt64
    var time: Int64
    var stateHash: String
  }

  var store: String
  var files: [String: File] = [:]
  var points: [Point] = []

  init(store: String) { self.store = store }

  var text: String {
    var text = "penstock-backup 1\nstore \(store)\n"
    for name in files.keys.sorted() {
      guard let file = files[name] else { continue }
      text +=
        "\(file.isDamaged ? "damaged" : "file") \(name) \(file.size) "
        + Hex.text(UInt64(file.checksum), digits: 8) + "\n"
    }
    for point in points { text += "point \(point.lsn) \(point.time) \(point.stateHash)\n" }
    return text + "end \(Self.checksum(text))\n"
  }

  private static func checksum(_ text: String) -> String {
    Hex.text(UInt64(Array(text.utf8).withRaw { CRC32C.of($0) }), digits: 8)
  }

  private init?(_ text: String) {
    // The last line is 13 bytes long.
    let start = text.utf8.index(text.endIndex, offsetBy: -13, limitedBy: text.startIndex)
    guard let start, text[start...] == "end \(Self.checksum(String(text[..<start])))\n" else {
      return nil
    }
    let lines = text[..<start].split(separator: "\n").map { $0.split(separator: " ") }
    guard lines.count >= 2, lines[0] == ["penstock-backup", "1"], lines[1].count == 2,
      lines[1][0] == "store"
    else { return nil }
    store = String(lines[1][1])
    for words in lines.dropFirst(2) {
      guard words.count == 4 else { return nil }
      if words[0] == "file" || words[0] == "damaged", let size = UInt64(words[2]),
        let sum = UInt32(words[3], radix: 16)
      {
        files[String(words[1])] = File(
          size: size, checksum: sum, isDamaged: words[0] == "damaged")
      } else if words[0] == "point", let lsn = UInt64(words[1]), let time = Int64(words[2]) {
        points.append(Point(lsn: lsn, time: time, stateHash: String(words[3])))
      } else {
        return nil
      }
    }
  }

  /// - Returns: nil when there is none.
  /// - Throws: `damaged` when it cannot be believed.
  static func read(_ context: ToolContext) throws(ToolError) -> Manifest? {
    let path = context.path(name)
    let bytes = try unlessMissing { () throws(SystemError) in
      let file = try context.fileSystem.open(path, .readOnly)
      let bytes = try file.bytes(Int(min(try file.size(), 256 << 20)), at: 0)
      try file.close()
      return bytes ?? []
    }
    guard let bytes else { return nil }
    guard let text = String(validating: bytes, as: UTF8.self), let manifest = Manifest(text) else {
      throw ToolError(
        .damaged,
        "\(path) is damaged: the backup cannot be believed. Its files may still be whole; "
          + "verify looks at them")
    }
    return manifest
  }

  func write(_ context: ToolContext) throws(ToolError) {
    let buffer = CommitBuffer(capacity: 4096)
    buffer.put(Array(text.utf8))
    try FileCopy(context).write(Self.name, buffer)
  }
}
