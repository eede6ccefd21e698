"""`POST /tokenize` and `POST /detokenize`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gpt_neox_japanese.errors import TokenizationError
from gpt_neox_japanese.server.api.schema import DetokenizeRequest, TokenizeRequest, read_body
from gpt_neox_japanese.server.error_responses import ApiError, JsonResponse, to_json
from gpt_neox_japanese.server.service import ServedModel, Service
from gpt_neox_japanese.server.streaming import ClientGoneError, unless_client_leaves

__all__ = ["detokenize", "tokenize"]


async def tokenize(service: Service, request: Request) -> Response:
    """Tell the tokens of a text, and which of its characters each stands for.

    Args:
        service: Whose tokenizer.
        request: With a `TokenizeRequest` as its body.

    Returns:
        Ids and pieces.

    Raises:
        ApiError: The text is missing, too long, or cannot be encoded.
    """
    model = service.model
    body = await read_body(request, TokenizeRequest)
    model.check_name(body.model)
    given = [text for text in (body.prompt, body.content) if text is not None]
    if len(given) != 1:
        raise ApiError(400, "give the text as prompt or as content, one of them", param="prompt")
    [text] = given
    try:
        data = await unless_client_leaves(
            model.in_thread(lambda: to_json(_pieces(model, text))), request.receive
        )
    except ClientGoneError:
        return Response(status_code=499)
    except TokenizationError as error:
        raise ApiError(400, str(error), param="prompt") from None
    return Response(data, media_type="application/json")


def _pieces(model: ServedModel, text: str) -> dict[str, Any]:
    codec, names = model.codec, model.names
    encoding = codec.encode_with_offsets(text)
    ids, offsets = encoding.ids.tolist(), encoding.offsets.tolist()
    pieces = []
    of_one_place: list[int] = []  # the byte tokens of one character all stand for it
    for number, (token_id, (start, end)) in enumerate(zip(ids, offsets, strict=True)):
        of_one_place.append(token_id)
        is_byte = token_id in names.byte_ids
        if is_byte and number + 1 < len(ids) and offsets[number + 1] == [start, end]:
            complete = False
        else:
            complete = True
        pieces.append(
            {
                "id": token_id,
                "text": text[start:end] if complete else "",
                "bytes": names.bytes(token_id),
                "start": start,
                "end": end,
                "normalized": False,
            }
        )
        if complete:
            changed = codec.decode(of_one_place) != text[start:end]
            for piece in pieces[-len(of_one_place) :]:
                piece["normalized"] = changed
            of_one_place = []
    return {
        "tokens": ids,
        "count": len(ids),
        "max_model_len": model.max_model_len,
        "pieces": pieces,
        "normalized": codec.decode(ids),
    }


async def detokenize(service: Service, request: Request) -> Response:
    """Tell the text of ids.

    Args:
        service: Whose tokenizer.
        request: With a `DetokenizeRequest` as its body.

    Returns:
        The text, under both names that clients know.

    Raises:
        ApiError: An id does not exist.
    """
    model = service.model
    body = await read_body(request, DetokenizeRequest)
    model.check_name(body.model)
    try:
        text = await unless_client_leaves(
            model.in_thread(model.codec.decode, body.tokens), request.receive
        )
    except ClientGoneError:
        return Response(status_code=499)
    except TokenizationError as error:
        raise ApiError(400, str(error), param="tokens") from None
    return JsonResponse({"prompt": text, "content": text})
