// SPDX-License-Identifier: Apache-2.0

/// The parts of a request in the one form that client and server sign, whatever way they were
/// written on the wire.
package enum CanonicalRequest {
  /// Path and query of a request target, without the question mark. A target that names the whole
  /// URL counts from its path on.
  static func parts(ofTarget target: String) -> (path: ArraySlice<UInt8>, query: ArraySlice<UInt8>)
  {
    let bytes = Array(target.utf8)
    var rest = bytes[...]
    for scheme in ["http://", "https://"] where bytes.starts(with: scheme.utf8) {
      rest = bytes[scheme.utf8.count...]
        .drop { $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: "?") }
    }
    guard let mark = rest.firstIndex(of: UInt8(ascii: "?")) else { return (rest, []) }
    return (rest[..<mark], rest[(mark + 1)...])
  }

  /// Without empty and dot segments, and encoded once more than it came: `%2F` becomes `%252F`. A
  /// slash at the end stays.
  package static func path(_ path: ArraySlice<UInt8>) -> [UInt8] {
    let slash = UInt8(ascii: "/")
    var segments: [ArraySlice<UInt8>] = []
    for segment in path.split(separator: slash) {
      if segment.elementsEqual(".".utf8) { continue }
      if segment.elementsEqual("..".utf8) {
        _ = segments.popLast()
      } else {
        segments.append(segment)
      }
    }
    var result: [UInt8] = []
    result.reserveCapacity(path.count + 16)
    for segment in segments {
      result.append(slash)
      encode(segment, into: &result)
    }
    if segments.isEmpty || path.last == slash { result.append(slash) }
    return result
  }

  /// One parameter of a query string, without its encoding.
  struct Parameter {
    var name: [UInt8]
    var value: [UInt8]
  }

  /// The parameters in the order in which they came. A plus is a space, as in forms, and a percent
  /// sign without two hex digits stands for itself.
  static func parameters(_ query: ArraySlice<UInt8>) -> [Parameter] {
    query.split(separator: UInt8(ascii: "&")).map { part in
      let equals = part.firstIndex(of: UInt8(ascii: "=")) ?? part.endIndex
      return Parameter(name: decode(part[..<equals]), value: decode(part[equals...].dropFirst()))
    }
  }

  /// Encoded anew and in order of the encoded name, then of the encoded value.
  static func query(_ parameters: [Parameter]) -> [UInt8] {
    var pairs: [(name: [UInt8], value: [UInt8])] = []
    pairs.reserveCapacity(parameters.count)
    for parameter in parameters {
      var pair: (name: [UInt8], value: [UInt8]) = ([], [])
      encode(parameter.name[...], into: &pair.name)
      encode(parameter.value[...], into: &pair.value)
      pairs.append(pair)
    }
    pairs.sort { a, b in
      a.name == b.name
        ? a.value.lexicographicallyPrecedes(b.value) : a.name.lexicographicallyPrecedes(b.name)
    }
    var result: [UInt8] = []
    for pair in pairs {
      if !result.isEmpty { result.append(UInt8(ascii: "&")) }
      result += pair.name
      result.append(UInt8(ascii: "="))
      result += pair.value
    }
    return result
  }

  package static func query(_ query: ArraySlice<UInt8>) -> [UInt8] {
    self.query(parameters(query))
  }

  /// Outer blanks gone, runs of inner ones one space, several values joined with commas.
  package static func headerValue(_ values: [String]) -> [UInt8] {
    var result: [UInt8] = []
    for (position, value) in values.enumerated() {
      if position > 0 { result.append(UInt8(ascii: ",")) }
      var hasWord = false
      for word in value.utf8.split(whereSeparator: { $0 == 0x20 || $0 == 0x09 }) {
        if hasWord { result.append(0x20) }
        result += word
        hasWord = true
      }
    }
    return result
  }

  /// All of it.
  ///
  /// - Parameter headers: names in lower case and values in canonical form, in order of the names.
  static func bytes(
    method: String, path: [UInt8], query: [UInt8], headers: [(name: String, value: [UInt8])],
    payload: String
  ) -> [UInt8] {
    let newline = UInt8(ascii: "\n")
    var result = Array(method.utf8)
    result.append(newline)
    result += path
    result.append(newline)
    result += query
    result.append(newline)
    for (name, value) in headers {
      result += name.utf8
      result.append(UInt8(ascii: ":"))
      result += value
      result.append(newline)
    }
    result.append(newline)
    for (position, header) in headers.enumerated() {
      if position > 0 { result.append(UInt8(ascii: ";")) }
      result += header.name.utf8
    }
    result.append(newline)
    result += payload.utf8
    return result
  }

  private static func encode(_ bytes: ArraySlice<UInt8>, into result: inout [UInt8]) {
    let digits = Array("0123456789ABCDEF".utf8)
    for byte in bytes {
      if Alphabet.isNameByte(byte) || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "~") {
        result.append(byte)
      } else {
        result.append(UInt8(ascii: "%"))
        result.append(digits[Int(byte >> 4)])
        result.append(digits[Int(byte & 15)])
      }
    }
  }

  private static func decode(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count)
    var position = bytes.startIndex
    while position < bytes.endIndex {
      let byte = bytes[position]
      position += 1
      if byte == UInt8(ascii: "%"), bytes.endIndex - position >= 2,
        let high = JSONParser.hexDigit(bytes[position]),
        let low = JSONParser.hexDigit(bytes[position + 1])
      {
        result.append(high << 4 | low)
        position += 2
      } else {
        result.append(byte == UInt8(ascii: "+") ? 0x20 : byte)
      }
    }
    return result
  }
}
