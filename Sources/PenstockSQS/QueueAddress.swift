// SPDX-License-Identifier: Apache-2.0

/// A queue as a client names it in `QueueUrl`.
package struct QueueAddress: Hashable, Sendable {
  /// Nil for a bare queue name, which means the caller's own account.
  package var account: String?
  package var name: String

  /// Reads an absolute http(s) URL, `account/name` or a bare name. Scheme, host and port do not
  /// count, so that a URL stays good when the server moves. Nil when it can name no queue.
  package init?(parsing text: String) {
    var text = text
    // In place: this is read for every request.
    guard let names = text.withUTF8({ Self.names(in: $0) }) else { return nil }
    (account, name) = names
  }

  private static func names(
    in bytes: UnsafeBufferPointer<UInt8>
  ) -> (account: String?, name: String)? {
    // Longer than any host, account and name together.
    guard !bytes.isEmpty, bytes.count <= 2048 else { return nil }
    if bytes.allSatisfy({ Alphabet.isNameByte($0) || $0 == UInt8(ascii: ".") }) {
      return (nil, String(decoding: bytes, as: UTF8.self))
    }
    let slash = UInt8(ascii: "/")
    var rest = bytes.prefix { $0 != UInt8(ascii: "?") && $0 != UInt8(ascii: "#") }
    let colon = (0..<rest.endIndex).first {
      rest[$0] == UInt8(ascii: ":") && rest[$0...].starts(with: "://".utf8)
    }
    if let colon {
      let scheme = String(decoding: rest[..<colon], as: UTF8.self).lowercased()
      guard scheme == "http" || scheme == "https" else { return nil }
      guard let path = rest[(colon + 3)...].firstIndex(of: slash) else { return nil }
      rest = rest[path...]
    }
    let isBare = rest.startIndex == 0
    var segments: [String] = []
    segments.reserveCapacity(4)
    while let start = rest.firstIndex(where: { $0 != slash }), segments.count < 5 {
      let segment = rest[start...].prefix { $0 != slash }
      rest = rest[segment.endIndex...]
      if segment.contains(UInt8(ascii: "%")) {
        guard let decoded = PercentCoding.decode(segment) else { return nil }
        segments.append(decoded)
      } else {
        segments.append(String(decoding: segment, as: UTF8.self))
      }
    }
    switch segments.count {
    case 1 where isBare: return (nil, segments[0])
    case 2: return (segments[0], segments[1])
    case 4 where segments[0] == "queue": return (segments[2], segments[3])
    default: return nil
    }
  }
}

/// `%XX` and, in forms, `+`.
enum PercentCoding {
  /// Nil when a percent sign is not followed by two hex digits or the result is not UTF-8.
  static func decode(_ coded: some Collection<UInt8>, plusIsSpace: Bool = false) -> String? {
    bytes(coded, plusIsSpace: plusIsSpace).flatMap { String(validating: $0, as: UTF8.self) }
  }

  /// Nil when a percent sign is not followed by two hex digits.
  static func bytes(_ coded: some Collection<UInt8>, plusIsSpace: Bool = false) -> [UInt8]? {
    var result: [UInt8] = []
    result.reserveCapacity(coded.count)
    var rest = coded[...]
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "%") {
        guard let high = rest.popFirst().flatMap(JSONParser.hexDigit),
          let low = rest.popFirst().flatMap(JSONParser.hexDigit)
        else { return nil }
        result.append(high << 4 | low)
      } else {
        result.append(plusIsSpace && byte == UInt8(ascii: "+") ? 0x20 : byte)
      }
    }
    return result
  }
}

/// The rules for names.
package enum QueueName {
  package static func isValid(_ name: String) -> Bool {
    let bytes = name.utf8
    return (1...80).contains(bytes.count) && bytes.allSatisfy(Alphabet.isNameByte)
  }

  package static func isValidFIFO(_ name: String) -> Bool {
    name.utf8.count <= 80 && name.hasSuffix(".fifo") && isValid(String(name.dropLast(5)))
  }
}

/// The alphabets of identifiers and texts.
package enum Alphabet {
  /// `A-Z a-z 0-9 _ -`
  static func isNameByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
      true
    default: false
    }
  }

  /// 1 to 128 printable ASCII characters without the space.
  static func isGroupID(_ text: String) -> Bool {
    (1...128).contains(text.utf8.count) && text.utf8.allSatisfy { (0x21...0x7e).contains($0) }
  }

  /// True when all characters are among those a message may hold: U+0009, U+000A, U+000D, U+0020
  /// to U+D7FF, U+E000 to U+FFFD and U+10000 to U+10FFFF. `bytes` comes from
  /// `JSONNode.stringBytes`: UTF-8, but for surrogates.
  package static func isWireText(_ bytes: [UInt8]) -> Bool {
    var position = bytes.withUnsafeBytes { PlainText.end(of: $0, from: 0, isQuoted: false) }
    while position < bytes.count {
      defer { position += 1 }
      switch bytes[position] {
      case 0x20..<0xed, 0x09, 0x0a, 0x0d: continue
      case 0xed:
        if position + 1 < bytes.count, bytes[position + 1] >= 0xa0 { return false }
      case 0xef:
        if position + 2 < bytes.count, bytes[position + 1] == 0xbf, bytes[position + 2] >= 0xbe {
          return false
        }
      case 0..<0x20: return false
      default: continue
      }
    }
    return true
  }
}
